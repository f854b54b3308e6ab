"""Connections to Redis that break in the ways of networks: half open, or cut between a command and its reply."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from api.logins.waiting import FALLBACK_PERIOD, Waiting
from runtime.redis.connections import command_client, subscriber
from runtime.redis.keys import Keys
from runtime.settings import Settings
from statemachine.lifecycle import Outcome
from statemachine.store.reading import Sessions
from tests.support.eventually import wait_until
from tests.support.proxy import Proxy
from tests.support.redis_server import free_port
from tests.support.relay import Relay, working

NOTICED_WITHIN = 6.0  # seconds; more than the time-out of a blocking read
NEVER = 60.0  # seconds between two look-ups, where none shall come within a test
SHORT = 0.02  # seconds between two look-ups, where many of them are
MANY = 50  # of those

DICE = random.Random(1)  # noqa: S311 - which connection goes first does not matter here

on_one_partition_and_on_four = pytest.mark.parametrize("settings", [1, 4], ids=["P=1", "P=4"], indirect=True)


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """One partition, or as many as the test asks for."""
    return msgspec.structs.replace(settings, partitions=getattr(request, "param", 1))


@contextlib.asynccontextmanager
async def listening(
    settings: Settings, through_proxy: Settings, keys: Keys, period: float = FALLBACK_PERIOD
) -> AsyncIterator[Waiting]:
    """Listen as an API process does, with only the subscription going through the proxy."""
    redis = command_client(settings, "test")
    api = Waiting(subscriber(through_proxy, "test"), Sessions(redis, keys), keys, "api", period=period)
    task = asyncio.create_task(api.run())
    try:
        yield api
    finally:
        while not task.done():  # a cancellation can be lost: see api.app
            task.cancel()
            await asyncio.wait({task}, timeout=1)
        await redis.aclose()


async def subscriptions(relay: Relay) -> int:
    """Return how many connections listen to the hints of every partition."""
    hints = [relay.keys.hints(partition) for partition in relay.keys.partitions]
    return min(int(count) for _, count in await relay.redis.pubsub_numsub(*hints))


async def is_subscribed(relay: Relay) -> bool:
    """Whether one connection listens to the hints."""
    return await subscriptions(relay) == 1


async def is_deaf(relay: Relay) -> bool:
    """Whether no connection listens to the hints."""
    return await subscriptions(relay) == 0


def reconnects() -> float:
    """Return how often a subscription was interrupted, for any reason, in all tests so far."""
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "login_relay_reconnects_total" and sample.labels["loop"] == "subscriber"
    )


def looked_up() -> float:
    """Return how many waiters got from a look-up what no message brought them, in all tests so far."""
    kinds = [{"waiting_for": kind} for kind in ("outcome", "change")]
    return sum(REGISTRY.get_sample_value("login_relay_hint_fallbacks_total", kind) or 0.0 for kind in kinds)


async def test_api_notices_that_its_subscription_is_half_open(
    proxy: Proxy, through_proxy: Settings, relay: Relay, keys: Keys
) -> None:
    """It subscribes again within seconds, so that hints come at once and not from the look-up each second."""
    async with listening(relay.settings, through_proxy, keys) as api:
        await wait_until(lambda: is_subscribed(relay))
        dead = set(proxy.links)
        proxy.half_open(len(dead), DICE)
        await wait_until(lambda: not dead & proxy.links, within=NOTICED_WITHIN)
        await wait_until(lambda: is_subscribed(relay))
        session_id = (await relay.initiate()).session_id
        with api.for_change(session_id) as change:
            await relay.complete(session_id)
            await relay.work()
            await asyncio.wait_for(change, FALLBACK_PERIOD / 2)


@on_one_partition_and_on_four
async def test_quiet_subscription_is_kept(proxy: Proxy, through_proxy: Settings, relay: Relay, keys: Keys) -> None:
    """A connection without messages for longer than it takes to notice a dead peer stays open."""
    before = reconnects()
    async with listening(relay.settings, through_proxy, keys, SHORT):
        await wait_until(lambda: is_subscribed(relay))
        first = set(proxy.links)
        await asyncio.sleep(MANY * SHORT)
        assert first == proxy.links
    assert reconnects() == before


@on_one_partition_and_on_four
async def test_waiters_of_every_partition_are_told_by_a_message(
    through_proxy: Settings, relay: Relay, keys: Keys
) -> None:
    """The look-up is for lost messages: where none is lost, no look-up answers a waiter, in any partition."""
    sessions: dict[int, str] = {}
    while len(sessions) < len(keys.partitions):
        session_id = (await relay.initiate()).session_id
        sessions[keys.partition_of(session_id)] = session_id
    async with listening(relay.settings, through_proxy, keys, NEVER) as api, contextlib.AsyncExitStack() as waiting:
        await wait_until(lambda: is_subscribed(relay))
        await asyncio.sleep(SHORT)  # for the one look-up that follows the subscription
        before = looked_up()
        waiters: list[asyncio.Future[Any]] = []
        for partition, session_id in sessions.items():
            waiters.append(waiting.enter_context(api.for_change(session_id)))
            waiters.append(waiting.enter_context(api.for_outcome(partition, session_id)))
            await relay.complete(session_id, session_id)
        await relay.work()
        await asyncio.wait_for(asyncio.gather(*waiters), NOTICED_WITHIN)
        assert looked_up() == before


async def test_waiters_are_looked_up_at_once_after_a_reconnect(
    proxy: Proxy, through_proxy: Settings, relay: Relay, keys: Keys
) -> None:
    """What was published while nobody was subscribed is found on reconnecting, not by the next regular look-up."""
    session_id = (await relay.initiate()).session_id
    async with listening(relay.settings, through_proxy, keys, NEVER) as api:
        await wait_until(lambda: is_subscribed(relay))
        with api.for_change(session_id) as change, api.for_outcome(0, "complete") as outcome:
            proxy.target_port, redis_port = free_port(), proxy.target_port
            for link in list(proxy.links):
                link.close()
            await wait_until(lambda: is_deaf(relay))
            await relay.complete(session_id)
            await relay.work()
            assert not change.done()
            before = looked_up()
            proxy.target_port = redis_port
            await asyncio.wait_for(asyncio.gather(change, outcome), NOTICED_WITHIN)
            assert looked_up() == before + 2


async def test_subscription_that_redis_refuses_is_tried_ever_less_often(own_relay: Relay) -> None:
    """One log line and one count for a series of refusals, and growing pauses between the tries."""
    await own_relay.redis.acl_setuser("default", enabled=True, nopass=True, commands=["-subscribe"])
    before = reconnects()
    with capture_logs() as logs:
        async with listening(own_relay.settings, own_relay.settings, own_relay.keys):
            await asyncio.sleep(FALLBACK_PERIOD)
            errors = await own_relay.redis.info("errorstats")
            assert 1 < errors["errorstat_NOPERM"]["count"] < 12
            await own_relay.redis.acl_setuser("default", enabled=True, nopass=True, commands=["+subscribe"])
            await wait_until(lambda: is_subscribed(own_relay))
            await wait_until(lambda: logs[-1]["event"] == "listening again")
    assert [log["event"] for log in logs] == ["stopped listening", "listening again"]
    assert reconnects() == before + 1


async def test_worker_notices_that_its_connections_are_half_open(
    proxy: Proxy, through_proxy: Settings, relay: Relay
) -> None:
    """A blocked read without an answer is given up and repeated, and entries read into the void are taken over."""
    async with working(through_proxy):
        await completed_by_a_worker(relay)
        proxy.half_open(len(proxy.links), DICE)
        await completed_by_a_worker(relay)


async def completed_by_a_worker(relay: Relay) -> None:
    """Record a completion and wait until a worker has decided it."""
    session_id = (await relay.initiate()).session_id
    await relay.complete(session_id, session_id)

    async def is_completed() -> bool:
        return await relay.outcome(session_id, session_id) is Outcome.COMPLETED

    await wait_until(is_completed, within=NOTICED_WITHIN)
