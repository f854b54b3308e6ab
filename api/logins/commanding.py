"""Recording a command and waiting, for a bounded time, for what a worker makes of it."""

import asyncio
import hashlib
import secrets

from api.logins.waiting import Answer, Waiting
from api.request.metrics import BACKLOG_FULL, OUTCOME_TIMEOUTS, OUTCOME_WAIT
from api.request.note import note_outcome
from runtime.redis.connections import COMMAND_TIMEOUT
from runtime.redis.keys import Keys
from runtime.settings import Settings
from statemachine.commands import Command
from statemachine.lifecycle import Outcome, State
from statemachine.store.command_stream import (
    Busy,
    CommandStream,
    Known,
    Moved,
    Recorded,
)
from statemachine.store.sessions import SessionStore


def answer_within(settings: Settings) -> float:
    """Return in how many seconds a request is answered, if only with 503, whatever happens to workers and Redis.

    The time that a held poll is held for comes on top.
    """
    return settings.outcome_wait_ms / 1000 + COMMAND_TIMEOUT


def command_id(kind: str, subject: bytes, idempotency_key: str | None) -> str:
    """Return the id of a command: the same for the same key and subject, else a fresh one."""
    if idempotency_key is None:
        return secrets.token_hex(16)
    return hashlib.sha256(b"\0".join((kind.encode(), subject, idempotency_key.encode()))).hexdigest()[:32]


class Outcomes:
    """Has commands decided."""

    def __init__(
        self,
        stream: CommandStream,
        store: SessionStore,
        waiting: Waiting,
        keys: Keys,
        *,
        backlog_limit: int,
        wait_ms: int,
    ) -> None:
        self._stream = stream
        self._store = store
        self._waiting = waiting
        self._keys = keys
        self._backlog_limit = backlog_limit
        self._wait = wait_ms / 1000

    @property
    def reply_to(self) -> str:
        """Return the name under which workers reply to this process."""
        return self._waiting.api_id

    async def of(self, command: Command, wanted: State, *, keep_ms: int) -> Answer | Moved | Busy | None:
        """Record a command for a session in the state `wanted` and return what became of it.

        The outcome is kept for `keep_ms`. `Moved` and `Busy` say that nothing was recorded, None that no worker
        answered in time: the command is still on the stream.
        """
        partition = self._keys.partition_of(command.session_id)
        kind = type(command).__name__
        with self._waiting.for_outcome(partition, command.id) as reply:
            match await self._stream.enqueue(command, wanted, backlog_limit=self._backlog_limit, outcome_ms=keep_ms):
                case Known(outcome) if outcome is not Outcome.PENDING:
                    return Answer(outcome)
                case Recorded() | Known():
                    with OUTCOME_WAIT.labels(kind).time():
                        answer = await self._wait_for(reply, partition, command.id)
                    note_outcome(answer.outcome if answer else "none in time")
                    if answer is None:
                        OUTCOME_TIMEOUTS.labels(kind).inc()
                    return answer
                case Busy() as busy:
                    BACKLOG_FULL.labels(kind).inc()
                    return busy
                case refused:
                    return refused

    async def of_recorded(self, partition: int, id_: str) -> Answer | None:
        """Wait for a command that was recorded before; None if no worker answered in time."""
        with self._waiting.for_outcome(partition, id_) as reply:
            return await self._look(partition, id_) or await self._wait_for(reply, partition, id_)

    async def _wait_for(self, reply: asyncio.Future[Answer], partition: int, id_: str) -> Answer | None:
        try:
            return await asyncio.wait_for(reply, self._wait)
        except TimeoutError:
            # The reply may have been lost in the last second; the key is the answer, never the reply.
            return await self._look(partition, id_)

    async def _look(self, partition: int, id_: str) -> Answer | None:
        [outcome] = await self._store.read_outcomes(partition, [id_])
        return None if outcome is None or outcome is Outcome.PENDING else Answer(outcome)
