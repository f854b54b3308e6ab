"""A Redis that does not answer: frozen, overloaded, or behind a dead network."""

import asyncio
import time

import httpx
import pytest

from tests.support.eventually import wait_until
from tests.support.sites import Client, Login, StartSite

pytestmark = pytest.mark.faults

OUTCOME_WAIT = 3.0  # seconds; more than min-idle and a reclaim period, less than the default to be quicker here
BOUND = OUTCOME_WAIT + 2.0  # seconds; and two for Redis itself
TOLERANCE = 1.0  # seconds
STALL = 2.5  # seconds; longer than a command's time-out, so that commands are sent again
LOGINS = 20


@pytest.mark.parametrize("hold", [0, 2])
async def test_every_request_is_answered_in_its_time(start_site: StartSite, hold: int) -> None:
    """With 503 and Retry-After, no later than the wait for a worker, the time-out of Redis and the hold together."""
    site = await start_site(outcome_wait_ms=int(OUTCOME_WAIT * 1000))
    client = site.client
    pending, completed = await client.initiate(), await client.completed()
    site.redis.freeze()
    started = time.monotonic()
    try:
        answers = await asyncio.gather(
            client.http.post("/cli", headers=client.project.client_headers),
            client.complete(pending, key="complete"),
            client.poll(pending, wait=hold),
            client.poll(completed, wait=hold),
        )
    finally:
        took = time.monotonic() - started
        site.redis.thaw()
    assert took < hold + BOUND + TOLERANCE
    assert [(answer.status_code, answer.headers.get("retry-after")) for answer in answers] == [(503, "1")] * 4
    assert (await client.complete(pending, key="complete")).status_code == 200


async def test_readiness_is_told_in_its_time(start_site: StartSite) -> None:
    """Probes every second do not pile up: each is answered within two seconds that the process is not ready."""
    site = await start_site()
    site.redis.freeze()
    try:
        async with httpx.AsyncClient(base_url=site.service.url, trust_env=False, timeout=30) as http:
            started = time.monotonic()
            answers = await asyncio.gather(*(http.get("/health/ready") for _ in range(5)))
            took = time.monotonic() - started
    finally:
        site.redis.thaw()
    assert {answer.status_code for answer in answers} == {503}
    assert took < 2 + TOLERANCE


@pytest.mark.parametrize("content", [b"CompleteSession", b"session.completed"], ids=["enqueueing", "committing"])
async def test_command_of_a_redis_that_stalled_is_recorded_and_decided_once(
    start_site: StartSite, content: bytes
) -> None:
    """Frozen for longer than a time-out, from the request that records or commits: its repetition is recognised."""
    site = await start_site(workers=2)
    logins = [await site.client.initiate() for _ in range(LOGINS)]
    redis = site.redis

    def freeze(_: object) -> bool:
        redis.freeze()
        return True

    site.to_redis.at(content, freeze)
    completing = [asyncio.create_task(_completed(site.client, login)) for login in logins]
    try:
        await wait_until(lambda: site.to_redis.awaited is None)
        await asyncio.sleep(STALL)
    finally:
        redis.thaw()
    await asyncio.gather(*completing)
    recorded = (await site.look.xinfo_stream(site.keys.commands(0)))["entries-added"]
    assert recorded == len(logins)
    for login in logins:
        assert (await site.client.poll(login)).json()["refresh_token"] == f"rt-{login.session_id}"
        assert [version for _, version in await site.versions(login.session_id)] == [1, 2, 3]
    await wait_until(site.is_at_rest)


async def _completed(client: Client, login: Login) -> None:
    while (answer := await client.complete(login, key="k")).status_code == 503:
        pass
    assert answer.status_code == 200, answer.text
