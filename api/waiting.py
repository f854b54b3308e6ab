"""Waiting for what workers publish: one pub/sub connection per process serves all its waiters.

What is published only says that there is something to know; it may be lost. So whoever waits registers first and looks
second, everyone looks again after a reconnect, and once a second all that still wait are looked up in one batch.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import structlog
from redis.asyncio import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError

from statemachine.connections import CONNECTION_LOST
from statemachine.keys import Keys
from statemachine.machine import Outcome
from statemachine.store import SessionStore

FALLBACK_PERIOD = 1.0  # seconds; what a lost hint costs at most
FALLBACK_BATCH = 500  # look-ups a round trip

_log = structlog.get_logger("api")
_BACKOFF = ExponentialWithJitterBackoff(base=0.05, cap=1.0)


class Answer(NamedTuple):
    """What became of a command."""

    outcome: Outcome
    sealed_token: bytes | None = None
    """Only from the reply to the command that consumed the session; the fallback leaves it to be read."""


class _Waiters(NamedTuple):
    partition: int
    futures: list[asyncio.Future[Answer]]


class Waiting:
    """The waiters of one process."""

    def __init__(self, subscriber: Redis, store: SessionStore, keys: Keys, api_id: str) -> None:
        self.api_id = api_id
        self._subscriber = subscriber
        self._store = store
        self._replies = {keys.replies(partition, api_id).encode() for partition in keys.partitions}
        self._waiters: dict[str, _Waiters] = {}
        """By command id."""

    @contextlib.contextmanager
    def for_outcome(self, partition: int, command_id: str) -> Iterator[asyncio.Future[Answer]]:
        """Register for a command's outcome, as long as the context lasts."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(command_id, _Waiters(partition, []))
        waiters.futures.append(future)
        try:
            yield future
        finally:
            waiters.futures.remove(future)
            if not waiters.futures:
                del self._waiters[command_id]

    async def run(self) -> None:
        """Listen and look up until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._look_up())

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                async with self._subscriber.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(*self._replies)
                    if failures:
                        _log.info("listening again", failures=failures)
                        failures = 0
                    while True:
                        message = await pubsub.get_message(timeout=FALLBACK_PERIOD)
                        if message is not None:
                            self._deliver(message["data"])
            except (*CONNECTION_LOST, RedisError) as error:
                failures += 1
                if failures == 1:
                    _log.warning("stopped listening", error=type(error).__name__)
                await asyncio.sleep(_BACKOFF.compute(failures))

    def _deliver(self, data: bytes) -> None:
        command_id, outcome, sealed_token = data.split(b" ", 2)
        self._wake(command_id.decode(), Answer(Outcome(outcome.decode()), sealed_token or None))

    def _wake(self, command_id: str, answer: Answer) -> None:
        if (waiters := self._waiters.get(command_id)) is not None:
            for future in waiters.futures:
                if not future.done():
                    future.set_result(answer)

    async def _look_up(self) -> None:
        while True:
            await asyncio.sleep(FALLBACK_PERIOD)
            waiting = [(waiters.partition, command_id) for command_id, waiters in self._waiters.items()]
            try:
                for start in range(0, len(waiting), FALLBACK_BATCH):
                    batch = waiting[start : start + FALLBACK_BATCH]
                    for (_, command_id), outcome in zip(batch, await self._store.read_outcomes(batch), strict=True):
                        if outcome is not None and outcome is not Outcome.PENDING:
                            self._wake(command_id, Answer(outcome))
            except (*CONNECTION_LOST, RedisError):
                continue  # whoever waits is bounded by a time of their own
