"""Listening to channels on a connection of its own, through what may happen to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple, NoReturn

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from runtime.redis.connections import subscriber
from runtime.redis.subscriber import Subscriber
from runtime.settings import Settings
from tests.support.eventually import wait_until
from tests.support.proxy import Proxy
from tests.support.redis_process import RedisProcess

SHORT = 0.02  # seconds between two PINGs, for many of them during a test
NOTICED = 5.0  # seconds; a loss is noticed at once
NEVER = 60.0  # seconds; longer than a test lasts


class Listening(NamedTuple):
    """A subscription that is under way."""

    task: asyncio.Task[NoReturn]
    heard: list[tuple[bytes, bytes]]


@pytest.fixture
def channels(settings: Settings) -> list[bytes]:
    """Channels of this test."""
    return [f"{settings.prefix}:{n}".encode() for n in range(3)]


@contextlib.asynccontextmanager
async def listening(to: Subscriber, channels: list[bytes], period: float) -> AsyncIterator[Listening]:
    """Listen, from when all channels are subscribed, and stop at the end of the context."""
    heard: list[tuple[bytes, bytes]] = []
    subscribed = asyncio.Event()

    def hear(channel: bytes, content: bytes) -> None:
        if content == b"not ours":
            message = "not ours"
            raise ValueError(message)
        heard.append((channel, content))

    task = asyncio.create_task(to.listen(channels, hear, subscribed.set, period=period))
    await asyncio.wait_for(subscribed.wait(), NOTICED)
    yield Listening(task, heard)
    task.cancel()
    await asyncio.wait({task})


async def test_every_message_is_heard_between_the_answers_to_pings(
    settings: Settings, redis: Redis, channels: list[bytes]
) -> None:
    """In the order in which they were published, for each channel, however long they are."""
    async with listening(subscriber(settings, "login-relay:test"), channels, SHORT) as to:
        published = [(channels[n % 3], b"%d %s" % (n, b"x" * (n * 1_000))) for n in range(300)]
        for channel, content in published:
            await redis.publish(channel.decode(), content)
        await wait_until(lambda: len(to.heard) == len(published))
        assert to.heard == published
        assert not to.task.done()


async def test_lost_connection_is_noticed_at_once(through_proxy: Settings, proxy: Proxy, channels: list[bytes]) -> None:
    """Not only by the next PING."""
    async with listening(subscriber(through_proxy, "login-relay:test"), channels, NEVER) as to:
        for link in list(proxy.links):
            link.close()
        with pytest.raises(RedisConnectionError):
            await asyncio.wait_for(to.task, NOTICED)


async def test_connection_that_has_become_silent_is_given_up(
    second_server: RedisProcess, channels: list[bytes]
) -> None:
    """No answer to a PING for some periods."""
    to = subscriber(Settings(redis_url=second_server.url), "login-relay:test")
    async with listening(to, channels, 10 * SHORT) as under_way:
        second_server.freeze()
        with pytest.raises(RedisTimeoutError):
            await asyncio.wait_for(under_way.task, NOTICED)
        second_server.thaw()


async def test_message_that_cannot_be_read_ends_the_subscription(
    settings: Settings, redis: Redis, channels: list[bytes]
) -> None:
    """Its error is the caller's, who may subscribe again."""
    async with listening(subscriber(settings, "login-relay:test"), channels, NEVER) as to:
        await redis.publish(channels[0].decode(), "not ours")
        with pytest.raises(ValueError, match="not ours"):
            await asyncio.wait_for(to.task, NOTICED)


async def test_refused_subscription_raises(second_server: RedisProcess, channels: list[bytes]) -> None:
    """SUBSCRIBE has no reply of its own, so its error must not be taken for that of another command."""
    await second_server.client.acl_setuser("default", enabled=True, nopass=True, commands=["-subscribe"])
    to = subscriber(Settings(redis_url=second_server.url), "login-relay:test")
    with pytest.raises(NoPermissionError):
        await asyncio.wait_for(to.listen(channels, lambda *_: None, lambda: None, period=NEVER), NOTICED)
