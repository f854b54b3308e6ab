import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from runtime.master_secret import new_master_secret
from runtime.master_secrets import MasterSecretsFile, read_master_secrets, write_master_secrets
from runtime.redis.connections import REDIS_TROUBLE
from runtime.redis.keys import Keys
from tests.support.eventually import wait_until
from tests.support.redis_process import RedisProcess
from tests.support.relay import Relay
from tokens import announcing
from tokens.announcing import LIFE_MS, Announcement, Announcing, read_announcements

URL = "https://relay.example.com"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one secret."""
    path = tmp_path / "keys.json"
    write_master_secrets(path, [new_master_secret()], is_new=True)
    return path


@contextlib.asynccontextmanager
async def running(redis: Redis, keys: Keys, path: Path | None) -> AsyncIterator[None]:
    """Announce what a process with this file has."""
    file = None if path is None else MasterSecretsFile(path)
    task = asyncio.create_task(Announcing(redis, keys, file, URL).run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def expected(path: Path | None) -> list[Announcement]:
    """Return what is announced of this process with a file."""
    secrets = () if path is None else read_master_secrets(path)
    return [Announcement(socket.gethostname(), os.getpid(), URL, tuple(one.fingerprint for one in secrets))]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the file, and announce, without a pause of seconds."""
    monkeypatch.setattr(announcing, "PERIOD", 0.05)


async def test_process_announces_its_secrets_and_those_of_a_changed_file(redis: Redis, keys: Keys, path: Path) -> None:
    """In place of what it announced before; at its end it takes the announcement back."""

    async def is_announced() -> bool:
        return await read_announcements(redis, keys) == expected(path)

    async with running(redis, keys, path):
        await wait_until(is_announced)
        secrets = read_master_secrets(path)
        write_master_secrets(path, (new_master_secret(), *secrets))
        await wait_until(is_announced)
        assert 0 < await redis.pttl(keys.master_secrets()) <= LIFE_MS
    assert await read_announcements(redis, keys) == []


async def test_process_without_a_file_says_so(redis: Redis, keys: Keys) -> None:
    """A process without one beside others that have one would refuse their tokens."""

    async def is_announced() -> bool:
        return await read_announcements(redis, keys) == expected(None)

    async with running(redis, keys, None):
        await wait_until(is_announced)


async def test_announcement_of_a_killed_process_is_forgotten(relay: Relay, path: Path) -> None:
    """When it has not been repeated for a while, and others go on."""
    redis, keys = relay.redis, relay.keys
    dead = b'{"host":"dead","pid":1,"public_url":null,"fingerprints":[]}'
    alive = b'{"host":"alive","pid":1,"public_url":null,"fingerprints":[]}'
    seconds, _ = await redis.time()
    await redis.zadd(
        keys.master_secrets(), {dead: seconds * 1_000 - LIFE_MS - 1_000, alive: seconds * 1_000 - LIFE_MS + 60_000}
    )

    async def hosts() -> bool:
        found = {one.host for one in await read_announcements(redis, keys)}
        return found == {"alive", socket.gethostname()}

    async with running(redis, keys, path):
        await wait_until(hosts)


async def test_nothing_of_a_secret_is_in_redis(redis: Redis, keys: Keys, path: Path) -> None:
    """Neither it nor its kid, only derived bits."""

    async def announced() -> list[bytes]:
        found: list[bytes] = await redis.execute_command("ZRANGE", keys.master_secrets(), 0, -1)
        return found

    async with running(redis, keys, path):
        [announcement] = await wait_until(announced)
    [one] = read_master_secrets(path)
    for told in (one.secret, one.secret.hex().encode(), one.kid.encode()):
        assert told not in announcement


async def test_process_goes_on_announcing_after_redis_was_away(
    second_server: RedisProcess, keys: Keys, path: Path
) -> None:
    """It reads its file all the while."""
    redis = second_server.client

    async def is_announced() -> bool:
        try:
            return await read_announcements(redis, keys) == expected(path)
        except REDIS_TROUBLE:  # a connection of before the kill
            return False

    async with running(redis, keys, path):
        await wait_until(is_announced)
        second_server.kill()
        write_master_secrets(path, [new_master_secret()])
        await second_server.start()
        await wait_until(is_announced, within=20)
