"""Records commands and waits, for a bounded time, for the outcomes that workers decide."""

import asyncio
import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from typing import NamedTuple

import msgspec

from api.logins.refusals import Busy, KeyReused, NotDoneInTime
from api.logins.waiting import Answer, Waiting
from api.request.metrics import BACKLOG_FULL, OUTCOME_TIMEOUTS, outcome_wait
from api.request.note import note_outcome
from runtime.redis.connections import COMMAND_TIMEOUT
from runtime.redis.keys import Keys
from statemachine.commands import Command
from statemachine.lifecycle import Outcome
from statemachine.machine import decision
from statemachine.store import command_stream
from statemachine.store.command_stream import CommandStream, Moved, Recorded, Repeated
from statemachine.store.reading import Sessions

FINGERPRINT_BYTES = 16  # two requests share one by chance with a probability of 2**-128
PATIENCE_MARGIN_MS = 1_000
# A consume is committed at least this long before its poll stops waiting, or never. So if a poll has been answered that
# the session is pending, its consume will not be committed any more, and the token stays for the next poll.

_json = msgspec.json.Encoder()


class Limits(NamedTuple):
    """How long commands are waited for and outcomes are kept (milliseconds), and how many may be undecided."""

    wait_ms: int
    replay_window_ms: int
    idempotency_ms: int
    """How long the outcome of a repeatable command is kept."""
    backlog: int
    """How many commands of one partition may be undecided."""


def answer_within(outcome_wait_ms: int) -> float:
    """Return the seconds within which a request is answered or refused, whatever happens to workers and Redis.

    A held poll may take longer by the time for which it is held.
    """
    return outcome_wait_ms / 1000 + COMMAND_TIMEOUT


class Identity(NamedTuple):
    """What a request's command is known by."""

    id: str
    """The same for the same Idempotency-Key of the same sender; without a key, a new random one."""
    fingerprint: str
    """Tells this request from others with the same key; empty without one."""


def identify(key: str | None, sender: tuple[str, ...], code: str, asked: tuple[str | None, ...]) -> Identity:
    """Return the identity of a command; `asked` is all that its request asks for, for the session of `code`.

    The fingerprint is keyed by what Redis does not hold, so that no token can be guessed from one.
    """
    if key is None:
        return Identity(secrets.token_hex(16), "")
    id_ = hashlib.sha256(_json.encode((*sender, key))).hexdigest()[:32]
    mac = hmac.digest(_json.encode((key, code)), _json.encode(asked), "sha256")
    return Identity(id_, urlsafe_b64encode(mac[:FINGERPRINT_BYTES]).rstrip(b"=").decode())


class Commanding:
    """Records commands and waits, for a bounded time, for their outcomes."""

    def __init__(self, stream: CommandStream, store: Sessions, waiting: Waiting, keys: Keys, limits: Limits) -> None:
        self._stream = stream
        self._store = store
        self._waiting = waiting
        self._keys = keys
        self._limits = limits
        self.patience_ms = max(limits.wait_ms - PATIENCE_MARGIN_MS, limits.wait_ms // 2)
        """How long after its recording a command may be committed if its request must receive the outcome."""

    @property
    def reply_to(self) -> str:
        """The name under which workers reply to this process."""
        return self._waiting.api_id

    async def decide(self, command: Command, fingerprint: str = "", *, repeatable: bool = False) -> Answer:
        """Record a command and return its outcome.

        If the session is not in the state that the command asks for, nothing is recorded, and the lifecycle gives the
        outcome. The outcome of a `repeatable` command is kept for as long as an Idempotency-Key is valid.

        Raises:
            KeyReused: another request came with the same Idempotency-Key before; nothing was recorded.
            Busy: the backlog is full; nothing was recorded.
            NotDoneInTime: the command is on the stream, but no worker decided it in time.

        """
        partition = self._keys.partition_of(command.session_id)
        kind = type(command).__name__
        outcome_ms = self._limits.idempotency_ms if repeatable else self._limits.replay_window_ms
        with self._waiting.for_outcome(partition, command.id) as reply:
            match await self._stream.enqueue(
                command, backlog_limit=self._limits.backlog, outcome_ms=outcome_ms, fingerprint=fingerprint
            ):
                case Repeated(outcome) if outcome is not Outcome.PENDING:
                    return Answer(outcome)
                case Recorded() | Repeated():
                    return await self.in_time(reply, partition, command.id, kind)
                case command_stream.Busy():
                    BACKLOG_FULL.labels(kind).inc()
                    raise Busy
                case command_stream.Reused():
                    raise KeyReused
                case Moved() as moved:
                    return Answer(outcome_of_moved(command, moved))

    async def in_time(self, reply: asyncio.Future[Answer | None], partition: int, id_: str, kind: str) -> Answer:
        """Return the outcome of a command that was recorded just now; `kind` is its name in metrics.

        Raises:
            NotDoneInTime: the command is on the stream, but no worker decided it in time.

        """
        with outcome_wait(kind).time():
            answer = await self._wait_for(reply, partition, id_)
        note_outcome(answer.outcome if answer else "none in time")
        if answer is None:
            OUTCOME_TIMEOUTS.labels(kind).inc()
            raise NotDoneInTime
        return answer

    async def recorded(self, partition: int, id_: str) -> Answer:
        """Return the outcome of a command that was recorded before.

        Raises:
            NotDoneInTime: no worker decided it in time.

        """
        with self._waiting.for_outcome(partition, id_) as reply:
            answer = await self._look(partition, id_) or await self._wait_for(reply, partition, id_)
        if answer is None:
            raise NotDoneInTime
        return answer

    async def _wait_for(self, reply: asyncio.Future[Answer | None], partition: int, id_: str) -> Answer | None:
        # A timer that resolves the reply costs a third of asyncio.wait_for.
        timer = asyncio.get_running_loop().call_later(self._limits.wait_ms / 1000, _give_up, reply)
        try:
            answer = await reply
        finally:
            timer.cancel()
        # The reply may have been lost in the last second. Only the outcome key is authoritative, not the reply.
        return answer or await self._look(partition, id_)

    async def _look(self, partition: int, id_: str) -> Answer | None:
        [kept] = await self._store.read_outcomes(partition, [id_])
        return None if kept is None or kept.outcome is Outcome.PENDING else Answer(kept.outcome)


def _give_up(reply: "asyncio.Future[Answer | None]") -> None:
    if not reply.done():
        reply.set_result(None)


def outcome_of_moved(command: Command, moved: Moved) -> Outcome:
    """Return the outcome that a worker would have decided for a command whose session was in another state."""
    if moved.state is None:
        return Outcome.UNKNOWN
    return decision(moved.state, command.trigger, overdue=moved.overdue).outcome
