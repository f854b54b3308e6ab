"""Signs of life: a worker is alive when each of its loops made progress lately, not when its process answers."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterable

from redis.asyncio import Redis

from runtime.redis.connections import REDIS_TROUBLE
from runtime.redis.keys import Keys
from statemachine.store.workers import SignOfLife, leave_sign

PERIOD = 1.0  # seconds between two signs


class Heartbeat:
    """The progress of one worker's loops."""

    def __init__(self, redis: Redis, keys: Keys, consumer: str, loops: Iterable[str], stale_after: float) -> None:
        self._redis = redis
        self._keys = keys
        self._consumer = consumer
        self._stale_after = stale_after
        self._progress = dict.fromkeys(loops, time.monotonic())
        self._sign = SignOfLife(socket.gethostname(), os.getpid(), time.time())

    def beat(self, loop: str) -> None:
        """Note that a loop made progress."""
        self._progress[loop] = time.monotonic()

    def stuck(self) -> list[str]:
        """Return the loops that made no progress within the bound."""
        oldest = time.monotonic() - self._stale_after
        return [loop for loop, progress in self._progress.items() if progress < oldest]

    async def run(self, stopping: asyncio.Event) -> None:
        """Sign every second, as long as no loop is stuck."""
        while not stopping.is_set():
            if not self.stuck():
                with contextlib.suppress(*REDIS_TROUBLE):  # the loops themselves report and outlive this
                    await leave_sign(self._redis, self._keys, self._consumer, self._sign)
            try:
                await asyncio.wait_for(stopping.wait(), PERIOD)
            except TimeoutError:
                continue

    async def resign(self) -> None:
        """Take the sign of life back at the end of an orderly stop."""
        await self._redis.delete(self._keys.worker(self._consumer))
