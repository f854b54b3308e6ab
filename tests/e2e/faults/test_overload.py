"""More than the relay can take: a full backlog, and a Redis without memory."""

import asyncio
from collections import Counter
from pathlib import Path
from signal import SIGCONT, SIGTERM

import httpx
import pytest

from tests.support.eventually import wait_until
from tests.support.services import Process
from tests.support.sites import Login, OwnSite, StartSite

pytestmark = pytest.mark.faults

BACKLOG_LIMIT = 20
OVERLOAD = 10  # times the limit of the backlog
ROUNDS = 2
FLAT = 8_000  # kB by which a process may grow under a repeated overload: what an allocator keeps

RECORDED, BUSY = "recorded", "busy"


def kind_of(answer: httpx.Response) -> str:
    """Return which kind of 503 it is; both say when to try again."""
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), answer.text
    return BUSY if "Nothing was recorded" in answer.text else RECORDED


def resident(process: Process) -> int:
    """Return the memory of a process and those that it started, in kB."""
    group = [path for path in Path("/proc").glob("[0-9]*/stat") if _group_of(path) == process.pid]
    lines = [line for path in group for line in path.with_name("status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def _group_of(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[2])
    except OSError:  # it has just ended
        return 0


async def outcomes(site: OwnSite) -> int:
    """Return how many commands have a stored outcome."""
    return len([name async for name in site.look.scan_iter("*:outcome:*", count=10_000)])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="memory is read from /proc")
async def test_overload_is_refused_before_anything_is_recorded(start_site: StartSite) -> None:
    """Ten times the backlog: requests beyond it get 503 at once, memory stays flat, and all are served afterwards."""
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
    """Complete and poll each login, retrying after a 503, and wait until the backlog is empty."""
    turns = asyncio.Semaphore(16)  # after the overload: no more at once than a busy machine answers in time

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


async def test_full_redis_refuses_new_logins_and_those_under_way_go_on(start_site: StartSite) -> None:
    """At maxmemory nothing of a new login is written; held polls, completions, tokens, workers and expiry go on."""
    site = await start_site()
    client, worker = site.client, site.service.workers[0]
    held, recorded, done, expiring = [
        await client.initiate(),
        await client.initiate(),
        await client.completed(),
        await client.initiate(expires_in_millis=3_000),
    ]
    worker.stop()
    completing = asyncio.create_task(client.complete(recorded))

    async def is_recorded() -> bool:
        return int(await site.look.xlen(site.keys.commands(0))) == 1

    await wait_until(is_recorded)
    await site.look.config_set("maxmemory", "1mb")
    await site.look.config_resetstat()
    keys, events = await site.look.dbsize(), await site.look.xlen(site.keys.events(0))
    refused = await client.http.post("/cli", headers=client.project.client_headers)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
    assert refused.text == "The relay has no room for another login just now. Nothing was recorded; try again later."
    assert (await site.look.dbsize(), await site.look.xlen(site.keys.events(0))) == (keys, events)
    worker.send(SIGCONT)
    assert (await completing).status_code == 200  # it was recorded before the server was full
    polling = asyncio.create_task(client.poll(held, wait=20))
    assert (await client.complete(held)).status_code == 200
    assert (await polling).json()["refresh_token"] == f"rt-{held.session_id}"
    for login in (recorded, done):
        assert (await client.poll(login)).json()["refresh_token"] == f"rt-{login.session_id}"
        assert (await client.poll(login)).json() == {"status": "used"}
    assert (await client.http.post("/cli", headers=client.project.client_headers)).status_code == 503

    # A worker still counts as alive, and one that starts now works too.
    worker.send(SIGTERM)
    await asyncio.to_thread(worker.wait)
    assert await _signs(site) == []
    site.service.start_worker()
    await site.until_ready()
    assert len(await _signs(site)) == 1
    await site.look.delete(*await _signs(site))

    async def is_signed_again() -> bool:
        return len(await _signs(site)) == 1

    await wait_until(is_signed_again)

    async def is_expired() -> bool:
        return (await site.look.hget(site.keys.session(expiring.session_id), "state")) == b"expired"

    await wait_until(is_expired)
    statistics = await site.look.info("commandstats")
    rejected = {name: of_command.get("rejected_calls", 0) for name, of_command in statistics.items()}
    assert {name: count for name, count in rejected.items() if count} == {"cmdstat_evalsha": 2}  # both initiates
    await site.look.config_set("maxmemory", "0")
    assert (await client.completed()).session_id


async def _signs(site: OwnSite) -> list[bytes]:
    """Return the keys of the signs of life."""
    return [name async for name in site.look.scan_iter(site.keys.worker("*"), count=1_000)]
