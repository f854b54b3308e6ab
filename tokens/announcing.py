"""What the API processes publish of their master secrets, so that `login-relay doctor` can compare them."""

import asyncio
import contextlib
import os
import socket
from typing import NoReturn

import msgspec
from redis.asyncio import Redis

from runtime.master_secret import MasterSecret
from runtime.master_secrets import MasterSecretsFile
from runtime.redis.connections import REDIS_TROUBLE
from runtime.redis.keys import Keys
from runtime.redis.scripts import Script, run_script

_ANNOUNCE = Script.named("tokens", "announce")

PERIOD = 5.0  # seconds between two looks at the file, and between two announcements
LIFE_MS = 15_000  # of an announcement: three periods


class Announcement(msgspec.Struct, frozen=True):
    """What one API process has. It holds no secret, and nothing that a secret could be computed from."""

    host: str
    pid: int
    public_url: str | None
    fingerprints: tuple[str, ...]
    """Of its master secrets, the first of which signs; empty if it has no file."""


async def read_announcements(redis: Redis, keys: Keys) -> list[Announcement]:
    """Return what the API processes have that run now or ended in the last seconds, by host and process id."""
    found: list[bytes] = await redis.execute_command("ZRANGE", keys.master_secrets(), 0, -1)
    announcements = (msgspec.json.decode(one, type=Announcement) for one in found)
    return sorted(announcements, key=lambda one: (one.host, one.pid))


class Announcing:
    """Reads the file again when it has changed, and announces what this process has."""

    def __init__(self, redis: Redis, keys: Keys, file: MasterSecretsFile | None, public_url: str | None) -> None:
        self._redis = redis
        self._keys = keys
        self._file = file
        self._public_url = public_url
        self._previous = b""

    async def run(self) -> NoReturn:
        """Do both every few seconds, until cancelled; then take the announcement back."""
        try:
            while True:
                if self._file is not None:
                    self._file.refresh()
                with contextlib.suppress(*REDIS_TROUBLE):  # the next one comes soon
                    await self._announce(() if self._file is None else self._file.secrets)
                await asyncio.sleep(PERIOD)
        finally:
            with contextlib.suppress(*REDIS_TROUBLE):  # it expires by itself
                await self._redis.execute_command("ZREM", self._keys.master_secrets(), self._previous)

    async def _announce(self, secrets: tuple[MasterSecret, ...]) -> None:
        fingerprints = tuple(one.fingerprint for one in secrets)
        announcement = msgspec.json.encode(
            Announcement(socket.gethostname(), os.getpid(), self._public_url, fingerprints)
        )
        previous, self._previous = self._previous, announcement
        call = _ANNOUNCE.call(
            announcements=self._keys.master_secrets(), announcement=announcement, previous=previous, life_ms=LIFE_MS
        )
        await run_script(self._redis, _ANNOUNCE, call)
