"""Processes that are stopped by SIGTERM: under load, with no time to stop, and over and over."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from signal import SIGTERM
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.chaos.checker import check, look_at_rest
from tests.chaos.load import Load
from tests.support.eventually import wait_until
from tests.support.services import Process
from tests.support.sites import OwnSite, StartSite

pytestmark = pytest.mark.faults

CLIENTS = 16
LOGINS = 60  # between one stop and the next
RESTARTS, AT_A_TIME = 200, 8


@asynccontextmanager
async def under_load(site: OwnSite) -> AsyncIterator[Load]:
    """Have clients log in, over all APIs, until the context ends, and check the result of each login."""
    ports = [urlsplit(url).port or 80 for url in site.service.urls]
    async with aiohttp.ClientSession() as http:
        load = Load(http, ports, site.client.project, site.service.settings, time.monotonic, seed=1)
        task = asyncio.create_task(load.run(CLIENTS))
        try:
            yield load
            load.stopping.set()
            await task
        finally:
            task.cancel()
            await asyncio.wait({task})
    verdict = check(load.history, await look_at_rest(site.look, site.keys))
    assert verdict.holds, verdict


async def more_logins(load: Load) -> None:
    """Wait until some more have begun, so that earlier ones are in progress or done."""
    wanted = len(load.history.attempts) + LOGINS
    await wait_until(lambda: len(load.history.attempts) >= wanted, within=30)


async def stop(process: Process) -> int:
    """Stop a process by SIGTERM; returns its exit code."""
    process.send(SIGTERM)
    return await asyncio.to_thread(process.wait)


async def test_stopped_processes_cost_no_login_and_no_wait(start_site: StartSite) -> None:
    """APIs and workers come and go under load: nothing is lost or doubled, and nothing waits for the reclaimer."""
    site = await start_site(apis=2, workers=2, min_idle_ms=4_000)
    service = site.service
    async with under_load(site) as load:
        await more_logins(load)
        for worker in service.workers[:2]:
            service.start_worker()
            await site.until_ready()
            assert await stop(worker) == 0
            await more_logins(load)
        assert await stop(service.apis[1]) == 0
        await more_logins(load)
    waits = [operation.ended - operation.started for operation in load.history.operations() if not operation.hold]
    assert max(waits) < 4.0, "something waited for the reclaimer"
    assert "Traceback" not in service.output


async def test_worker_without_time_to_stop_leaves_what_it_has_to_the_others(start_site: StartSite) -> None:
    """A grace of a millisecond: the process ends at once, perhaps not cleanly, and every login succeeds."""
    site = await start_site(workers=3, shutdown_grace_ms=1, min_idle_ms=500, reclaim_period_ms=100)
    async with under_load(site) as load:
        for worker in site.service.workers[:2]:
            await more_logins(load)
            started = time.monotonic()
            assert await stop(worker) in {0, 1}
            assert time.monotonic() - started < 2


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_two_hundred_restarts_leave_no_trace(start_site: StartSite) -> None:
    """Under load; afterwards there is one consumer for each running worker, and not one key more than before."""
    site = await start_site(workers=1)
    service = site.service
    async with under_load(site):
        for _ in range(RESTARTS // AT_A_TIME):
            started = [service.start_worker() for _ in range(AT_A_TIME)]
            await site.until_ready()
            assert set(await stop_all(started)) == {0}
    consumers: list[dict[str, object]] = await site.look.xinfo_consumers(site.keys.commands(0), "workers")
    assert len(consumers) == 1
    assert [name async for name in site.look.scan_iter(site.keys.worker("*"))] == [
        site.keys.worker(str(consumers[0]["name"], "utf-8")).encode()  # type: ignore[call-overload] # bytes
    ]


async def stop_all(processes: Sequence[Process]) -> list[int]:
    """Stop processes at once; returns their exit codes."""
    return await asyncio.gather(*(stop(process) for process in processes))
