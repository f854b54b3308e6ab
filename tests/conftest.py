"""The Redis that tests use, and fixtures built on it. Each test has its own key prefix."""

import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog
from hypothesis import HealthCheck
from redis.asyncio import Redis

from projects.store import Projects
from runtime.redis.connections import command_client
from runtime.redis.keys import Keys
from runtime.settings import Settings
from statemachine.store.command_stream import CommandStream
from statemachine.store.initiating import Initiations

pytest.register_assert_rewrite("tests.support")  # so that a failed assertion there shows its values, as in a test

from tests.support.redis_server import RedisServer, embedded_server, remove_keys  # noqa: E402 - after the line above
from tests.support.store import initiations_of  # noqa: E402 - the same

REDIS_IMAGE = "redis:7.4"

# The time of an example depends more on the machine than on the tested code.
hypothesis.settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis.settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--redis`."""
    parser.addoption("--redis", default="embedded", help="embedded (default), container, or a URL")


@pytest.fixture(scope="session")
def redis_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """The server that `--redis` asks for."""
    wanted: str = request.config.getoption("--redis")
    if wanted == "embedded":
        with tempfile.TemporaryDirectory(prefix="login-relay-test-") as folder, embedded_server(Path(folder)) as server:
            yield RedisServer(f"redis://127.0.0.1:{server.port}/0", Path(folder))
    elif wanted == "container":
        from testcontainers.community.redis import RedisContainer  # noqa: PLC0415 - asks for an engine when imported

        with RedisContainer(REDIS_IMAGE) as container:
            host, port = container.get_container_host_ip(), container.get_exposed_port(container.port)
            yield RedisServer(f"redis://{host}:{port}/0", None)
    else:
        yield RedisServer(wanted, None)


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    """The URL of the server."""
    return redis_server.url


@pytest.fixture(autouse=True)
def logging_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reset logging for each test: a logger keeps the set-up of its first use, and could then not be captured."""
    configure = structlog.configure

    def configure_for_now(**options: Any) -> None:  # noqa: ANN401 - structlog's
        configure(**options | {"cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", configure_for_now)
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def no_key_without_ttl(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a key without a TTL that is not a permanent one; remove its keys."""
    if "settings" not in request.fixturenames:
        yield
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    settings: Settings = request.getfixturevalue("settings")
    yield
    leaked = remove_keys(server, Keys(settings.prefix, settings.partitions))
    assert not leaked, f"keys without TTL: {leaked}"


@pytest.fixture
def settings(redis_url: str) -> Settings:
    """The defaults, on the server of the tests, with a prefix of this test's own."""
    return Settings(redis_url=redis_url, prefix=f"t-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def keys(settings: Settings) -> Keys:
    """The keys of this test."""
    return Keys(settings.prefix, settings.partitions)


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    """A client for commands."""
    async with command_client(settings, "login-relay:test") as client:
        yield client


@pytest.fixture
def initiations(redis: Redis, keys: Keys, settings: Settings) -> Initiations:
    """The object that starts this test's sessions."""
    return initiations_of(redis, keys, settings)


@pytest.fixture
async def stream(redis: Redis, keys: Keys) -> CommandStream:
    """The inbound streams of this test, with their groups."""
    stream = CommandStream(redis, keys)
    await stream.ensure_groups()
    return stream


@pytest.fixture
def projects(redis: Redis, keys: Keys) -> Projects:
    """The projects of this test."""
    return Projects(redis, keys)
