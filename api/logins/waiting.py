"""Waits for what workers publish. One pub/sub connection per process serves all its waiters.

A published message is only a hint and may be lost. Therefore a waiter first registers and then reads once, and all
waiters are looked up in batches: immediately after a reconnect, and once a second.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Generic, NamedTuple, NoReturn, TypeVar

import structlog
from prometheus_client import Gauge
from redis.backoff import ExponentialWithJitterBackoff

from api.request.metrics import FALLBACKS, WAITERS
from runtime.loops import keep_running
from runtime.metrics_server import RECONNECTS
from runtime.redis.connections import REDIS_TROUBLE
from runtime.redis.keys import Keys
from runtime.redis.partitions import EachPartition
from runtime.redis.subscriber import Subscriber
from statemachine.lifecycle import Outcome
from statemachine.store.outcomes import AnyOutcome, outcome_named
from statemachine.store.reading import Sessions

FALLBACK_PERIOD = 1.0  # seconds; a lost message delays a waiter by this much at most
FALLBACK_BATCH = 500  # look-ups per round trip

_log = structlog.get_logger("api")
RECONNECTS.labels("subscriber", "ConnectionError")  # present from the start, see api/request/metrics.py
_OUTCOMES, _CHANGES = (WAITERS.labels(kind) for kind in ("outcome", "change"))
_BACKOFF = ExponentialWithJitterBackoff(base=0.05, cap=1.0)

T = TypeVar("T")
_Waiters = dict[str, list[asyncio.Future[T]]]


class Answer(NamedTuple):
    """The outcome of a command."""

    outcome: AnyOutcome
    sealed_token: bytes | None = None
    """Only in the reply to the command that consumed the session, or for which a refresh token has a successor. After
    the fallback the caller must read it."""


class Registration(Generic[T]):
    """A context in which a waiter is registered; it yields the waiter's future.

    A class: a context manager made of a generator would take half a KiB of every held poll.
    """

    __slots__ = ("_future", "_gauge", "_id", "_waiters")

    def __init__(self, waiters: "_Waiters[T]", id_: str, gauge: Gauge) -> None:
        self._waiters = waiters
        self._id = id_
        self._gauge = gauge

    def __enter__(self) -> "asyncio.Future[T]":
        """Register a new future and return it."""
        self._future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(self._id, []).append(self._future)
        self._gauge.inc()
        return self._future

    def __exit__(self, *_: object) -> None:
        """Remove the future, and the id with its last one."""
        self._gauge.dec()
        futures = self._waiters[self._id]
        futures.remove(self._future)
        if not futures:
            del self._waiters[self._id]


class Waiting:
    """The waiters of one process: requests for a command's outcome, and polls held until a session changes."""

    def __init__(
        self, subscriber: Subscriber, sessions: Sessions, keys: Keys, api_id: str, *, period: float = FALLBACK_PERIOD
    ) -> None:
        self.api_id = api_id
        self._period = period
        self._subscriber = subscriber
        self._store = sessions
        self._keys = keys
        # The partition of each channel.
        self._hints = {keys.hints(partition).encode(): partition for partition in keys.partitions}
        self._replies = {keys.replies(partition, api_id).encode(): partition for partition in keys.partitions}
        # The waiters of each partition, by the id of a command or of a session.
        self._commands: list[_Waiters[Answer | None]] = [{} for _ in keys.partitions]
        self._sessions: list[_Waiters[None]] = [{} for _ in keys.partitions]
        self._look_now = asyncio.Event()
        self.draining = False
        """Whether the process is about to stop and holds no more polls."""

    def for_outcome(self, partition: int, command_id: str) -> "Registration[Answer | None]":
        """Return what registers a waiter for a command's outcome. Whoever waits may resolve it with None: given up."""
        return Registration(self._commands[partition], command_id, _OUTCOMES)

    def for_change(self, session_id: str) -> "Registration[None]":
        """Return what registers a waiter for a pending session's next change."""
        return Registration(self._sessions[self._keys.partition_of(session_id)], session_id, _CHANGES)

    def drain(self) -> None:
        """Wake all held polls, so that they are answered now."""
        self.draining = True
        for partition, sessions in enumerate(self._sessions):
            for session_id in sessions:
                self._wake(partition, session_id)

    async def run(self) -> None:
        """Listen and look up until cancelled."""
        # Not a task group: that cancels its tasks only once, and redis-py can lose a cancellation in Python 3.11.
        await asyncio.gather(keep_running("listen", self._listen), keep_running("look up", self._look_up))

    async def _listen(self) -> NoReturn:
        channels, failures = [*self._hints, *self._replies], 0

        def subscribed() -> None:
            nonlocal failures
            self._look_now.set()  # an earlier look-up could miss an outcome and its message too
            if failures:
                _log.info("listening again", failures=failures)
                failures = 0

        while True:
            try:
                await self._subscriber.listen(channels, self._pass_on, subscribed, period=self._period)
            except (*REDIS_TROUBLE, ValueError) as error:  # ValueError: a message that is not ours
                failures += 1
                if failures == 1:
                    _log.warning("stopped listening", error=type(error).__name__)
                    RECONNECTS.labels("subscriber", type(error).__name__).inc()
                await asyncio.sleep(_BACKOFF.compute(failures))

    def _pass_on(self, channel: bytes, data: bytes) -> None:
        """Resolve the waiters of a published message.

        Raises:
            ValueError: no API or worker published this message.

        """
        if channel in self._hints:
            self._wake(self._hints[channel], data.decode())
        else:
            command_id, outcome, sealed_token = data.split(b" ", 2)
            answer = Answer(outcome_named(outcome.decode()), sealed_token or None)
            self._reply(self._replies[channel], command_id.decode(), answer)

    async def _look_up(self) -> NoReturn:
        clock = asyncio.get_running_loop().time
        due = clock() + self._period
        look_ups = EachPartition("look up", self._look_up_in, self._keys.partitions, losses=RECONNECTS)
        async with contextlib.aclosing(look_ups):
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due):  # not wait_for, which loses cancellations in Python 3.11
                        await self._look_now.wait()
                self._look_now.clear()
                due = clock() + self._period
                with contextlib.suppress(*REDIS_TROUBLE):  # the waiters have time limits of their own
                    await look_ups.step([p for p in self._keys.partitions if self._commands[p] or self._sessions[p]])

    async def _look_up_in(self, partition: int) -> None:
        for commands in _batches(self._commands[partition]):
            outcomes = await self._store.read_outcomes(partition, commands)
            for command_id, kept in zip(commands, outcomes, strict=True):
                if kept is not None and kept.outcome is not Outcome.PENDING:
                    FALLBACKS.labels("outcome").inc(self._reply(partition, command_id, Answer(kept.outcome)))
        for sessions in _batches(self._sessions[partition]):
            for session_id in await self._store.changed(sessions):
                FALLBACKS.labels("change").inc(self._wake(partition, session_id))

    def _reply(self, partition: int, command_id: str, answer: Answer) -> int:
        return _resolve(self._commands[partition].get(command_id, ()), answer)

    def _wake(self, partition: int, session_id: str) -> int:
        return _resolve(self._sessions[partition].get(session_id, ()), None)


def _batches(waiters: "_Waiters[T]") -> list[list[str]]:
    """Return the ids of all waiters, in batches for one round trip each."""
    ids = list(waiters)
    return [ids[start : start + FALLBACK_BATCH] for start in range(0, len(ids), FALLBACK_BATCH)]


def _resolve(futures: "Iterable[asyncio.Future[T]]", result: T) -> int:
    """Resolve the futures that are still waiting; return how many there were."""
    waiting = [future for future in futures if not future.done()]
    for future in waiting:
        future.set_result(result)
    return len(waiting)
