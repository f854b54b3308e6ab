"""Waiting for what workers publish: one pub/sub connection per process serves all its waiters.

What is published only says that there is something to know, and it may be lost. So whoever waits registers first and
looks second, and all that still wait are looked up in batches: at once after a reconnect, and once a second.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any, NamedTuple, NoReturn, TypeVar

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from api.request.metrics import FALLBACKS, WAITERS
from runtime.loops import keep_running
from runtime.metrics_server import RECONNECTS
from runtime.redis.connections import CONNECTION_LOST
from runtime.redis.keys import Keys
from statemachine.lifecycle import Outcome
from statemachine.store.sessions import SessionStore

FALLBACK_PERIOD = 1.0  # seconds; what a lost message costs at most
SILENT_PERIODS = 3  # a connection on which not even a PING is answered for so long is half open
FALLBACK_BATCH = 500  # look-ups a round trip

_log = structlog.get_logger("api")
RECONNECTS.labels("subscriber", "ConnectionError")  # present from the start, so that the first is seen as an increase
_OUTCOMES, _CHANGES = (WAITERS.labels(kind) for kind in ("outcome", "change"))
_BACKOFF = ExponentialWithJitterBackoff(base=0.05, cap=1.0)

T = TypeVar("T")
V = TypeVar("V")


class Answer(NamedTuple):
    """What became of a command."""

    outcome: Outcome
    sealed_token: bytes | None = None
    """Only from the reply to the command that consumed the session; the fallback leaves it to be read."""


class _Waiters(NamedTuple):
    partition: int
    futures: "list[asyncio.Future[Answer]]"


class Waiting:
    """The waiters of one process: requests for a command's outcome, and polls held until a session changes."""

    def __init__(
        self, subscriber: Redis, store: SessionStore, keys: Keys, api_id: str, *, period: float = FALLBACK_PERIOD
    ) -> None:
        self.api_id = api_id
        self._period = period
        self._subscriber = subscriber
        self._store = store
        self._keys = keys
        self._hints = {keys.hints(partition).encode() for partition in keys.partitions}
        self._replies = {keys.replies(partition, api_id).encode() for partition in keys.partitions}
        self._commands: dict[str, _Waiters] = {}
        """By command id."""
        self._sessions: dict[str, list[asyncio.Future[None]]] = {}
        """By session id."""
        self._look_now = asyncio.Event()
        self.draining = False
        """Whether the process is about to stop: no poll is held any more."""

    @contextlib.contextmanager
    def for_outcome(self, partition: int, command_id: str) -> Iterator[asyncio.Future[Answer]]:
        """Register for a command's outcome, as long as the context lasts."""
        waiters = self._commands.setdefault(command_id, _Waiters(partition, []))
        with _OUTCOMES.track_inprogress(), _registered(self._commands, command_id, waiters.futures) as future:
            yield future

    @contextlib.contextmanager
    def for_change(self, session_id: str) -> Iterator[asyncio.Future[None]]:
        """Register for a pending session's next change, as long as the context lasts."""
        futures = self._sessions.setdefault(session_id, [])
        with _CHANGES.track_inprogress(), _registered(self._sessions, session_id, futures) as future:
            yield future

    def drain(self) -> None:
        """Let all held polls answer now."""
        self.draining = True
        for session_id in self._sessions:
            self._wake(session_id)

    async def run(self) -> None:
        """Listen and look up until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_running("listen", self._listen))
            group.create_task(keep_running("look up", self._look_up))

    async def _listen(self) -> NoReturn:
        channels, failures = self._hints | self._replies, 0
        while True:
            try:
                async with self._subscriber.pubsub() as pubsub:
                    await pubsub.subscribe(*channels)
                    while True:
                        message = await self._next(pubsub)
                        if message["type"] == "message":
                            self._pass_on(message["channel"], message["data"])
                        elif message["type"] == "subscribe" and message["data"] == len(channels):
                            # The last confirmation. Before it, the look-up could miss an outcome and its message too.
                            self._look_now.set()
                            if failures:
                                _log.info("listening again", failures=failures)
                                failures = 0
            except (*CONNECTION_LOST, RedisError, ValueError) as error:  # ValueError: a message that is not ours
                failures += 1
                if failures == 1:
                    _log.warning("stopped listening", error=type(error).__name__)
                    RECONNECTS.labels("subscriber", type(error).__name__).inc()
                await asyncio.sleep(_BACKOFF.compute(failures))

    async def _next(self, pubsub: PubSub) -> dict[str, Any]:
        """Return what arrives next: a message, or a mere sign of life such as a confirmation or the answer to a PING.

        Raises:
            RedisConnectionError: the connection is lost, or has been silent for `SILENT_PERIODS`.

        """
        for _ in range(SILENT_PERIODS):
            message: dict[str, Any] | None = await pubsub.get_message(timeout=self._period)
            if message is not None:
                return message
            await pubsub.ping()
        raise RedisConnectionError("silent")

    def _pass_on(self, channel: bytes, data: bytes) -> None:
        """Tell waiters what was published.

        Raises:
            ValueError: it is not a message of ours.

        """
        if channel in self._hints:
            self._wake(data.decode())
        else:
            command_id, outcome, sealed_token = data.split(b" ", 2)
            self._reply(command_id.decode(), Answer(Outcome(outcome.decode()), sealed_token or None))

    async def _look_up(self) -> NoReturn:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._period):  # not wait_for, which loses cancellations in Python 3.11
                    await self._look_now.wait()
            self._look_now.clear()
            try:
                await self._look_up_commands()
                await self._look_up_sessions()
            except (*CONNECTION_LOST, RedisError):
                continue  # whoever waits is bounded by a time of their own

    async def _look_up_commands(self) -> None:
        waiting = [(waiters.partition, command_id) for command_id, waiters in self._commands.items()]
        for start in range(0, len(waiting), FALLBACK_BATCH):
            batch = waiting[start : start + FALLBACK_BATCH]
            for (_, command_id), outcome in zip(batch, await self._store.read_outcomes(batch), strict=True):
                if outcome is not None and outcome is not Outcome.PENDING:
                    FALLBACKS.labels("outcome").inc(self._reply(command_id, Answer(outcome)))

    async def _look_up_sessions(self) -> None:
        by_partition: dict[int, list[str]] = defaultdict(list)
        for session_id in self._sessions:
            by_partition[self._keys.partition_of(session_id)].append(session_id)
        for waiting in by_partition.values():
            for start in range(0, len(waiting), FALLBACK_BATCH):
                for session_id in await self._store.changed(waiting[start : start + FALLBACK_BATCH]):
                    FALLBACKS.labels("change").inc(self._wake(session_id))

    def _reply(self, command_id: str, answer: Answer) -> int:
        waiters = self._commands.get(command_id)
        return _resolve(waiters.futures, answer) if waiters else 0

    def _wake(self, session_id: str) -> int:
        return _resolve(self._sessions.get(session_id, ()), None)


def _resolve(futures: "Iterable[asyncio.Future[T]]", result: T) -> int:
    """Tell those who still wait; returns how many there were."""
    waiting = [future for future in futures if not future.done()]
    for future in waiting:
        future.set_result(result)
    return len(waiting)


@contextlib.contextmanager
def _registered(
    registry: MutableMapping[str, V], name: str, futures: "list[asyncio.Future[T]]"
) -> "Iterator[asyncio.Future[T]]":
    """Put a new future among `futures`; the last to leave takes the entry out of the registry."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    futures.append(future)
    try:
        yield future
    finally:
        futures.remove(future)
        if not futures:
            del registry[name]
