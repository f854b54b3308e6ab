"""More than the relay can take: a full backlog, and a Redis without memory."""

import asyncio
from collections import Counter
from pathlib import Path
from signal import SIGCONT

import httpx
import pytest

from tests.support.eventually import wait_until
from tests.support.services import Process
from tests.support.sites import Login, OwnSite, StartSite

pytestmark = pytest.mark.faults

BACKLOG_LIMIT = 20
OVERLOAD = 10  # times what the backlog holds
ROUNDS = 2
FLAT = 8_000  # kB by which a process may grow under a repeated overload: what an allocator keeps

RECORDED, BUSY = "recorded", "busy"


def kind_of(answer: httpx.Response) -> str:
    """Tell the two kinds of 503 apart; both say when to try again."""
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), answer.text
    return BUSY if "Nothing was recorded" in answer.text else RECORDED


def resident(process: Process) -> int:
    """Return the memory that a process and those it started have, in kB."""
    group = [path for path in Path("/proc").glob("[0-9]*/stat") if _group_of(path) == process.pid]
    lines = [line for path in group for line in path.with_name("status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def _group_of(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[2])
    except OSError:  # it has just ended
        return 0


async def outcomes(site: OwnSite) -> int:
    """Return for how many commands something is kept."""
    return len([name async for name in site.look.scan_iter("*:outcome:*", count=10_000)])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="memory is read from /proc")
async def test_overload_is_refused_before_anything_is_recorded(start_site: StartSite) -> None:
    """Ten times the backlog: what is over gets 503 at once, memory stays flat, and all of it is served afterwards."""
    site = await start_site(backlog_limit=BACKLOG_LIMIT, outcome_wait_ms=3_000)
    client, worker, api = site.client, site.service.workers[0], site.service.apis[0]
    logins = [await client.initiate() for _ in range(OVERLOAD * BACKLOG_LIMIT)]
    worker.stop()
    answers = await asyncio.gather(*(client.complete(login, key="k") for login in logins))
    assert Counter(map(kind_of, answers)) == {RECORDED: BACKLOG_LIMIT, BUSY: (OVERLOAD - 1) * BACKLOG_LIMIT}
    before = resident(api), (await site.look.info("memory"))["used_memory"]
    for _ in range(ROUNDS):
        answers = await asyncio.gather(
            *(client.complete(login, key=f"{number}") for number, login in enumerate(logins))
        )
        assert set(map(kind_of, answers)) == {BUSY}
        assert await site.look.xlen(site.keys.commands(0)) == BACKLOG_LIMIT
        assert await outcomes(site) == BACKLOG_LIMIT
    assert resident(api) - before[0] < FLAT
    assert (await site.look.info("memory"))["used_memory"] - before[1] < FLAT * 1_000
    assert (await client.poll(logins[0])).json() == {"status": "waiting"}
    worker.send(SIGCONT)
    await wait_until(site.is_at_rest)
    await _log_in(site, logins)


async def _log_in(site: OwnSite, logins: list[Login]) -> None:
    """Complete and fetch each, trying again as a 503 asks for, and the backlog is empty afterwards."""
    turns = asyncio.Semaphore(16)  # the overload is over: no more at once than a busy machine answers in time

    async def log_in(login: Login) -> None:
        async with turns:
            while (answer := await site.client.complete(login, key="k")).status_code != 200:
                assert kind_of(answer) == BUSY
            while (answer := await site.client.poll(login)).status_code != 201:
                assert answer.json() == {"status": "waiting"}

    await asyncio.gather(*(log_in(login) for login in logins))
    await wait_until(site.is_at_rest)


async def test_poll_under_a_full_backlog_is_told_to_wait(start_site: StartSite) -> None:
    """Never a 503, which would end the login in published clients; the token is there for the next poll."""
    site = await start_site(backlog_limit=1)
    done, recorded = await site.client.completed(), await site.client.initiate()
    site.service.workers[0].stop()
    completing = asyncio.create_task(site.client.complete(recorded))

    async def is_full() -> bool:
        return int(await site.look.xlen(site.keys.commands(0))) == 1

    await wait_until(is_full)
    assert (await site.client.poll(done)).json() == {"status": "waiting"}
    site.service.workers[0].send(SIGCONT)
    assert (await completing).status_code == 200
    assert (await site.client.poll(done)).json()["refresh_token"] == f"rt-{done.session_id}"


async def test_full_redis_refuses_before_anything_is_written(start_site: StartSite) -> None:
    """With maxmemory reached every write is a 503, nothing is half done, and all goes on once there is room."""
    site = await start_site()
    client = site.client
    pending, done = await client.initiate(), await client.completed()
    keys = await site.look.dbsize()
    before = [await site.look.hgetall(site.keys.session(login.session_id)) for login in (pending, done)]
    await site.look.config_set("maxmemory", "1mb")
    refused = [
        await client.http.post("/cli", headers=client.project.client_headers),
        await client.complete(pending),
        await client.poll(done),
    ]
    assert [(answer.status_code, answer.headers["retry-after"]) for answer in refused] == [(503, "1")] * 3
    assert (await client.poll(pending)).json() == {"status": "waiting"}
    assert await site.look.dbsize() == keys
    assert await site.is_at_rest()
    after = [await site.look.hgetall(site.keys.session(login.session_id)) for login in (pending, done)]
    assert after == before
    await site.look.config_set("maxmemory", "0")
    assert (await client.complete(pending)).status_code == 200
    for login in (pending, done):
        assert (await client.poll(login)).json()["refresh_token"] == f"rt-{login.session_id}"


async def test_command_that_a_full_redis_could_not_commit_is_done_later(start_site: StartSite) -> None:
    """The commit is refused as a whole: the session is as it was, and the entry stays until there is room."""
    site = await start_site(outcome_wait_ms=1_500, min_idle_ms=200, reclaim_period_ms=50, max_deliveries=2)
    login = await site.client.initiate()
    site.service.workers[0].stop()
    completing = asyncio.create_task(site.client.complete(login, key="k"))

    async def is_recorded() -> bool:
        return int(await site.look.xlen(site.keys.commands(0))) == 1

    await wait_until(is_recorded)
    await site.look.config_set("maxmemory", "1mb")
    site.service.workers[0].send(SIGCONT)
    assert kind_of(await completing) == RECORDED
    assert await site.versions(login.session_id) == [("session.initiated", 1)]
    assert await site.look.exists(site.keys.sealed_token(login.session_id)) == 0
    assert (await site.look.hget(site.keys.session(login.session_id), "state")) == b"pending"
    await site.look.config_set("maxmemory", "0")

    async def is_completed() -> bool:
        return (await site.client.complete(login, key="k")).status_code == 200

    await wait_until(is_completed)
    assert (await site.client.poll(login)).json()["refresh_token"] == f"rt-{login.session_id}"
