"""A service on a Redis of its own, with a proxy between them and one in front of the API."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.redis.connections import command_client
from tests.support.redis_process import RedisProcess
from tests.support.redis_server import RedisServer, remove_keys
from tests.support.services import Service, StartService
from tests.support.sites import Site, StartSite


@pytest.fixture
async def site(service: Service) -> AsyncIterator[Site]:
    """A service that all tests share: do nothing to its processes or its Redis."""
    look = command_client(service.settings, "login-relay:test")
    site = Site(service, look)
    await site.open()
    yield site
    await site.close()
    await look.aclose()


@pytest.fixture
async def own_redis(tmp_path: Path) -> AsyncIterator[RedisProcess]:
    """A Redis that no other test uses."""
    folder = tmp_path / "redis"
    folder.mkdir()
    redis = RedisProcess(folder)
    await redis.start()
    yield redis
    await redis.end()


@pytest.fixture
async def start_site(own_redis: RedisProcess, start_service: StartService) -> AsyncIterator[StartSite]:
    """Start sites of one's own; do to them as you like."""
    start = StartSite(own_redis, start_service)
    yield start
    leaked: list[str] = []
    for site in start.sites:
        await site.close()
        await asyncio.to_thread(site.service.end)
        await site.to_redis.close()
        leaked += await asyncio.to_thread(remove_keys, RedisServer(own_redis.url, None), site.keys)
    assert not leaked, f"keys without TTL: {leaked}"
