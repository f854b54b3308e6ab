"""A Redis that is killed, emptied, or loses its subscribers."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import pytest
from redis.asyncio import Redis

from api.logins.waiting import FALLBACK_PERIOD
from tests.support.eventually import wait_until
from tests.support.oauth_services import OPEN, oauth_settings
from tests.support.oauth_wire import OAuthWire, error
from tests.support.services import create_project
from tests.support.sites import Client, Login, OwnSite, StartSite, receives_its_token

pytestmark = pytest.mark.faults

LOGINS = 30
SETTLED, WATCHED = 4.0, 6.0  # seconds
ERRORS_A_SECOND = 5
PROMPTLY = 0.7 * FALLBACK_PERIOD  # seconds; sooner than the look-up that replaces a lost message


async def everyone(logins: list[Login], do: Callable[[Login], Awaitable[object]]) -> None:
    """Do the same for all logins at once."""
    await asyncio.gather(*(do(login) for login in logins))


async def subscriptions(site: OwnSite) -> int:
    """Return how many connections listen to hints."""
    [(_, count)] = await site.look.pubsub_numsub(site.keys.hints(0))
    return int(count)


async def test_what_was_acknowledged_survives_a_killed_redis(start_site: StartSite) -> None:
    """Killed and started on its append-only file: all 200s of complete hold, and no process had to be restarted."""
    site = await start_site(workers=2)
    client = site.client
    pending = [await client.initiate() for _ in range(LOGINS)]
    completed = [await client.completed() for _ in range(LOGINS)]
    site.redis.kill()
    assert (await client.poll(pending[0])).status_code == 503
    await site.redis.start()
    await everyone(completed, lambda login: receives_its_token(client, login))

    async def is_completed(login: Login) -> bool:
        return (await client.complete(login, key=login.session_id)).status_code == 200

    await everyone(pending, lambda login: wait_until(lambda: is_completed(login), within=20))
    await everyone(pending, lambda login: receives_its_token(client, login))
    for login in (*pending, *completed):
        assert [version for _, version in await site.versions(login.session_id)] == [1, 2, 3]
    assert all(process.is_running for process in site.service.processes)


async def test_device_code_is_pending_while_redis_is_away(start_site: StartSite, tmp_path: Path) -> None:
    """Never 503, which ends real OAuth clients: the next request hears the truth. A refresh may be repeated."""
    made = oauth_settings(tmp_path)
    site = await start_site(keys_file=made["keys_file"], public_url=made["public_url"])
    wire = OAuthWire(site.service, await create_project(site.service.settings, "oauth", oauth=OPEN))
    there = asyncio.to_thread  # the proxies before Redis run in this loop
    with wire.client, wire.backend.client:
        tokens, started = await there(wire.logged_in), await there(wire.start)
        site.redis.kill()
        assert error(await there(wire.ask, started)) == (400, "authorization_pending")
        assert error(await there(wire.refresh, tokens["refresh_token"])) == (503, "temporarily_unavailable")
        await site.redis.start()

        async def is_approved() -> bool:
            return (await there(wire.approve, started)).is_success

        await wait_until(is_approved, within=20)
        assert (await there(wire.ask, started)).is_success
        assert (await there(wire.refresh, tokens["refresh_token"])).is_success


@pytest.mark.parametrize("lost_by", ["FLUSHALL", "restart without its file"])
async def test_service_goes_on_after_everything_was_deleted(start_site: StartSite, lost_by: str) -> None:
    """Old sessions are unknown, new ones work, and the missing group is made again without a storm of errors."""
    site = await start_site(workers=2, project_cache_ms=0)
    old = await site.client.initiate()
    if lost_by == "FLUSHALL":
        await site.look.flushall()
        await site.look.config_resetstat()
    else:
        site.redis.kill()
        site.redis.forget()
        await site.redis.start()
        await site.until_ready()
    client = Client(str(site.client.http.base_url).removesuffix("/api/v1/auth/"), site.client.project)
    assert (await client.poll(old)).json()["code"] == "CURRENT_PROJECT_NOT_FOUND"
    client.project = await create_project(site.service.settings, "again")
    assert (await client.poll(old)).json()["code"] == "INVALID_POLLING_CODE"
    login = await client.completed()
    await receives_its_token(client, login)
    await client.http.aclose()
    errors: dict[str, dict[str, int]] = await site.look.info("errorstats")
    assert errors.get("errorstat_NOGROUP", {"count": 0})["count"] <= 2 * len(site.service.workers)


async def test_workers_leave_a_redis_that_refuses_them_in_peace(start_site: StartSite) -> None:
    """If the stream cannot be read and the group cannot be made, workers do not spin: tries are far apart."""
    site = await start_site(workers=1)
    await site.client.completed()
    await site.look.delete(site.keys.commands(0))
    await site.look.set(site.keys.commands(0), "no stream", px=60_000)
    await asyncio.sleep(SETTLED)
    await site.look.config_resetstat()
    await asyncio.sleep(WATCHED)
    errors: dict[str, dict[str, int]] = await site.look.info("errorstats")
    assert 0 < sum(error["count"] for error in errors.values()) < ERRORS_A_SECOND * WATCHED, errors
    await site.look.delete(site.keys.commands(0))
    login = await site.client.initiate()

    async def is_completed() -> bool:
        return (await site.client.complete(login, key="k")).status_code == 200

    await wait_until(is_completed, within=20)
    await receives_its_token(site.client, login)


async def test_waiters_are_told_again_after_their_subscription_was_cut(start_site: StartSite) -> None:
    """CLIENT KILL: the API subscribes again and looks up what it may have missed."""
    site = await start_site()
    logins = [await site.client.initiate() for _ in range(LOGINS)]
    polls = [asyncio.create_task(site.client.poll(login, wait=20)) for login in logins]
    await wait_until(lambda: _is_held(site))
    await site.look.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await everyone(logins, site.client.complete)
    started = time.monotonic()
    answers = await asyncio.gather(*polls)
    assert time.monotonic() - started < 5
    assert [answer.json()["refresh_token"] for answer in answers] == [f"rt-{login.session_id}" for login in logins]
    assert await subscriptions(site) == 1


async def _is_held(site: OwnSite) -> bool:
    """Return whether a session was read since it was initiated, as polls do before they are held."""
    stats: dict[str, dict[str, int]] = await site.look.info("commandstats")
    return stats.get("cmdstat_hmget", {"calls": 0})["calls"] >= LOGINS


async def test_without_any_pub_sub_answers_are_right_and_a_second_later(start_site: StartSite) -> None:
    """Messages only save time: with SUBSCRIBE forbidden, look-ups answer complete, poll and held poll."""
    site = await start_site()
    await site.look.execute_command("ACL", "SETUSER", "default", "-subscribe")
    await site.look.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await wait_until(lambda: _has_no_subscription(site))
    for _ in range(3):
        login = await site.client.initiate()
        held = asyncio.create_task(site.client.poll(login, wait=20))
        started = time.monotonic()
        assert (await site.client.complete(login)).status_code == 200
        completed = time.monotonic()
        assert (await held).json() == {"status": "success", "refresh_token": f"rt-{login.session_id}"}
        received = time.monotonic()
        assert completed - started < FALLBACK_PERIOD + PROMPTLY
        # Two look-ups: one for the change, one for the outcome of the consumption.
        assert received - completed < 2 * FALLBACK_PERIOD + PROMPTLY
        assert (await site.client.poll(login)).json() == {"status": "used"}


async def _has_no_subscription(site: OwnSite) -> bool:
    return await subscriptions(site) == 0


async def test_api_that_is_too_slow_a_subscriber_is_cut_off_and_recovers(start_site: StartSite) -> None:
    """Redis drops a subscriber that does not read (output buffer limit); its waiters still get their answers."""
    site = await start_site(apis=2, through_proxy=False)
    await site.look.config_set("client-output-buffer-limit", "pubsub 1mb 1mb 1")
    slow, quick = site.client, Client(site.service.urls[1], site.client.project)
    login = await quick.initiate()
    held = asyncio.create_task(slow.poll(login, wait=20))
    await wait_until(lambda: _has_subscriptions(site, 2))
    site.service.apis[0].send_to_group(SIGSTOP)
    try:
        assert (await quick.complete(login)).status_code == 200
        await wait_until(lambda: _flooded(site.look, site.keys.hints(0)), within=20)
    finally:
        site.service.apis[0].send_to_group(SIGCONT)
    assert (await held).json() == {"status": "success", "refresh_token": f"rt-{login.session_id}"}
    await wait_until(lambda: _has_subscriptions(site, 2))
    again = await slow.initiate()
    held = asyncio.create_task(slow.poll(again, wait=20))
    assert (await quick.complete(again)).status_code == 200
    assert (await held).json() == {"status": "success", "refresh_token": f"rt-{again.session_id}"}
    await quick.http.aclose()


async def _has_subscriptions(site: OwnSite, count: int) -> bool:
    return await subscriptions(site) == count


async def _flooded(redis: Redis, channel: str) -> bool:
    """Publish a megabyte; returns whether only one of two subscribers is left to receive it."""
    return await redis.publish(channel, b"x" * 1_000_000) == 1
