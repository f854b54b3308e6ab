"""Processes that are killed (SIGKILL) at a critical point."""

import asyncio
import random
from signal import SIGCONT, SIGKILL

import httpx
import pytest

from runtime.settings import variable
from tests.support.eventually import wait_until
from tests.support.sites import Client, OwnSite, StartSite

pytestmark = pytest.mark.faults

LOGINS = 20
COMPLETION = b"session.completed"  # in the request that commits a completion, and in no other of a worker
DICE = random.Random(1)  # noqa: S311 - all connections are chosen


async def pending(site: OwnSite) -> int:
    """Return how many entries workers have in hand."""
    return int((await site.look.xpending(site.keys.commands(0), "workers"))["pending"])


@pytest.mark.parametrize("point", ["after it was delivered", "before the script ran", "after the script ran"])
async def test_entry_is_decided_once_wherever_its_worker_is_killed(start_site: StartSite, point: str) -> None:
    """Before the commit another worker takes over, while the client still waits; after it nothing is left to do."""
    site = await start_site(workers=0, through_proxy=False)
    service, proxy = site.service, site.to_redis
    doomed = service.start_worker(**{variable("redis_url"): f"redis://127.0.0.1:{proxy.port}/0"})
    await site.until_ready()
    await site.client.completed()
    login = await site.client.initiate()
    if point == "after it was delivered":
        proxy.half_open(len(proxy.links), DICE)  # Redis delivers it to a reader that never receives it
    else:
        proxy.die_at(COMPLETION, executed=point == "after the script ran")
    completing = asyncio.create_task(site.client.complete(login, key="k"))

    async def is_there() -> bool:
        if point == "after the script ran":
            return len(await site.versions(login.session_id)) == 2
        return proxy.awaited is None and await pending(site) == 1

    await wait_until(is_there)
    doomed.send_to_group(SIGKILL)
    heir = service.start_worker()
    answer = await completing
    if answer.status_code == 503:  # only where a worker takes seconds to start
        answer = await site.client.complete(login, key="k")
    assert answer.status_code == 200, answer.text
    assert (await site.client.complete(login, key="k")).status_code == 200
    assert (await site.client.complete(login, key="other")).status_code == 400
    assert (await site.client.poll(login)).json()["refresh_token"] == f"rt-{login.session_id}"
    assert await site.versions(login.session_id) == [
        ("session.initiated", 1),
        ("session.completed", 2),
        ("session.consumed", 3),
    ]
    assert await site.is_at_rest()
    assert ("entries taken over" in heir.output) == (point != "after the script ran")


async def test_killed_api_leaves_its_held_polls_to_the_others(start_site: StartSite) -> None:
    """Clients poll another one and get their tokens, again with the same key; no subscription is left."""
    site = await start_site(apis=2, through_proxy=False)
    other = Client(site.service.urls[1], site.client.project)
    logins = [await other.initiate() for _ in range(LOGINS)]
    held = [asyncio.create_task(site.client.poll(login, key="mine", wait=20)) for login in logins]
    await wait_until(lambda: _are_held(site))
    before = await _reply_channels(site)
    site.service.apis[0].send_to_group(SIGKILL)
    lost = await asyncio.gather(*held, return_exceptions=True)
    assert all(isinstance(error, httpx.TransportError) for error in lost), lost
    await asyncio.gather(*(other.complete(login) for login in logins))
    for _ in range(2):
        answers = await asyncio.gather(*(other.poll(login, key="mine", wait=20) for login in logins))
        assert [answer.json().get("refresh_token") for answer in answers] == [f"rt-{it.session_id}" for it in logins]
    assert (await other.poll(logins[0], key="other")).json() == {"status": "used"}
    after = await _reply_channels(site)
    assert (len(before), len(after)) == (2, 1)
    assert after < before
    await other.http.aclose()


async def _are_held(site: OwnSite) -> bool:
    stats: dict[str, dict[str, int]] = await site.look.info("commandstats")
    return stats.get("cmdstat_hmget", {"calls": 0})["calls"] >= LOGINS


async def _reply_channels(site: OwnSite) -> set[object]:
    """Return the channels on which API processes receive replies."""
    return set(await site.look.pubsub_channels(f"{site.keys.replies(0, '')}*"))


async def test_token_consumed_for_a_killed_api_is_heard_with_the_key(start_site: StartSite) -> None:
    """Its poll was recorded when the process died: only a retry with the key gets the same outcome elsewhere."""
    site = await start_site(apis=2, through_proxy=False)
    other = Client(site.service.urls[1], site.client.project)
    login = await other.completed()
    site.service.workers[0].stop()
    polling = asyncio.create_task(site.client.poll(login, key="mine"))
    await wait_until(lambda: _is_recorded(site))
    site.service.apis[0].send_to_group(SIGKILL)
    with pytest.raises(httpx.TransportError):
        await polling
    site.service.workers[0].send(SIGCONT)
    await wait_until(site.is_at_rest)
    assert (await other.poll(login)).json() == {"status": "used"}
    for _ in range(2):
        assert (await other.poll(login, key="mine")).json()["refresh_token"] == f"rt-{login.session_id}"
    await other.http.aclose()


async def _is_recorded(site: OwnSite) -> bool:
    return int(await site.look.xlen(site.keys.commands(0))) == 1
