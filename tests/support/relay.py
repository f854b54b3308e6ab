"""Sessions driven step by step over a real Redis, and workers that run in the test's own loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

from redis.asyncio import Redis

from runtime.codes import new_login_code
from runtime.redis.keys import Keys
from runtime.settings import Settings
from statemachine.commands import AnyCommand, Command, CompleteSession, ConsumeSession, encode_command
from statemachine.lifecycle import Outcome, State
from statemachine.session import ClientFacts, TimedSession
from statemachine.store.command_stream import CommandStream, Enqueued, Entry
from statemachine.store.initiating import Initiated
from statemachine.store.reading import Sessions
from tests.support.eventually import wait_until
from tests.support.store import committing_of, family_handlers_of, initiations_of
from worker.app import work
from worker.handlers import Handlers

PROJECT = "3f0d7c1e-59a4-4a53-9a8e-2f1f5a0c9f10"
SEALED = b"\x00sealed to the poller\xff"
LIFETIME_MS = 600_000


class Event(NamedTuple):
    """An entry of the public stream."""

    type: str
    version: int
    fields: dict[str, str]


class Relay:
    """Does what API and worker do to sessions, one step at a time."""

    def __init__(self, redis: Redis, keys: Keys, settings: Settings, stream: CommandStream) -> None:
        self.redis = redis
        self.keys = keys
        self.settings = settings
        self.stream = stream
        self.initiations = initiations_of(redis, keys, settings)
        self.sessions = Sessions(redis, keys)
        self.committing = committing_of(redis, keys, settings)
        self.families = family_handlers_of(redis, keys, settings)
        self.handlers = Handlers(self.sessions, self.committing, self.families, settings.pickup_window_ms)

    async def initiate(self, lifetime_ms: int = LIFETIME_MS) -> Initiated:
        """Start a session."""
        return await self.initiations.initiate(PROJECT, ClientFacts("tool"), lifetime_ms, new_login_code)

    async def complete(
        self, session_id: str, id_: str = "complete", *, fingerprint: str = "", **limits: int
    ) -> Enqueued:
        """Record a completion, as the API does."""
        return await self._enqueue(CompleteSession(id_, session_id, "api", SEALED), fingerprint, **limits)

    async def consume(self, session_id: str, id_: str = "consume", patience: int = 4_000, **limits: int) -> Enqueued:
        """Record a consumption, as the API does."""
        return await self._enqueue(ConsumeSession(id_, session_id, "api", patience), "", **limits)

    async def _enqueue(
        self, command: Command, fingerprint: str, *, backlog_limit: int = 1_000, outcome_ms: int = 60_000
    ) -> Enqueued:
        return await self.stream.enqueue(
            command, backlog_limit=backlog_limit, outcome_ms=outcome_ms, fingerprint=fingerprint
        )

    async def record(self, command: AnyCommand | bytes, partition: int = 0) -> None:
        """Put a command, or any bytes, on the stream without reading its session."""
        data = command if isinstance(command, bytes) else encode_command(command)
        await self.redis.xadd(self.keys.commands(partition), {"command": data})

    async def read(self, consumer: str = "worker", count: int = 64) -> list[Entry]:
        """Read entries that no consumer has read."""
        return await self.stream.read(self.redis, consumer, count, block_ms=1)

    async def work(self, consumer: str = "worker") -> None:
        """Read all entries, and decide them."""
        while entries := await self.read(consumer):
            assert not await self.handlers.handle(entries)

    async def completed(self, lifetime_ms: int = LIFETIME_MS) -> Initiated:
        """Start a session and complete it."""
        initiated = await self.initiate(lifetime_ms)
        await self.complete(initiated.session_id, f"complete-{initiated.session_id}")
        await self.work()
        return initiated

    async def session(self, session_id: str) -> TimedSession:
        """Return a session as it is now."""
        session = (await self.sessions.load([session_id]))[session_id]
        assert isinstance(session, TimedSession)
        return session

    async def states(self, session_ids: list[str]) -> set[State]:
        """Return the states that sessions are in."""
        return {(await self.session(session_id)).state for session_id in session_ids}

    async def outcome(self, session_id: str, id_: str) -> Outcome | None:
        """Return the outcome of a command; None if there is none yet."""
        [kept] = await self.sessions.read_outcomes(self.keys.partition_of(session_id), [id_])
        return Outcome(kept.outcome) if kept else None

    async def backlog(self) -> int:
        """Return how many commands are not decided."""
        return sum([await self.redis.xlen(self.keys.commands(partition)) for partition in self.keys.partitions])

    async def pending(self, partition: int = 0) -> int:
        """Return how many entries are with a consumer."""
        summary = await self.redis.execute_command("XPENDING", self.keys.commands(partition), "workers")
        return int(summary["pending"] if isinstance(summary, dict) else summary[0])

    async def events(self, session_id: str) -> list[Event]:
        """Return the public facts of a session, in order."""
        entries = await self.redis.execute_command("XRANGE", self._events_of(session_id), "-", "+")
        found = [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in entries]
        return [
            Event(fields["type"], int(fields["version"]), fields) for fields in found if fields["subject"] == session_id
        ]

    def _events_of(self, session_id: str) -> str:
        return self.keys.events(self.keys.partition_of(session_id))

    async def facts(self, session_id: str) -> list[tuple[str, int]]:
        """Return the types and versions of a session's events."""
        return [event[:2] for event in await self.events(session_id)]

    async def now(self) -> int:
        """Return Redis' time in milliseconds."""
        seconds, microseconds = await self.redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def pass_by(self, moment: int) -> None:
        """Wait until Redis' time is after `moment`."""

        async def is_past() -> bool:
            return await self.now() > moment

        await wait_until(is_past)


@contextlib.asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[None]:
    """Run a whole worker in this loop; it must stop within its grace."""
    stopping = asyncio.Event()
    task = asyncio.create_task(work(settings, stopping))
    try:
        yield
    finally:
        stopping.set()
        await asyncio.wait_for(task, settings.shutdown_grace_ms / 1000)
