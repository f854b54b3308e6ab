"""Where sessions are kept: one hash each, with its login code, its sealed token and the outcomes of its commands.

Only `SessionStore.commit` changes a session's state after it was initiated.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from secrets import token_hex
from typing import NamedTuple, Self

import msgspec
from redis.asyncio import Redis

from events.cloud_event import EVENT_SOURCE, encode_event
from projects.errors import InitiationBudget, InitiationRefusedError
from runtime.clock import rfc3339
from runtime.codes import (
    SESSION_ID_LENGTH,
    PollingCode,
    login_code_digest,
    new_login_code,
    new_polling_code,
    new_session_id,
)
from runtime.redis.keys import GROUP, Keys
from runtime.redis.scripts import (
    Call,
    Reply,
    Script,
    run_script,
    run_scripts,
)
from runtime.settings import Settings
from statemachine.commands import Command, CompleteSession, ConsumeSession
from statemachine.errors import UnreadableSessionError
from statemachine.events import EVENT_TYPES, SessionInitiated, event_for
from statemachine.lifecycle import Decision, Outcome, State
from statemachine.sealing import public_key
from statemachine.session import ClientFacts, Session

_INITIATE = Script.named("statemachine.store", "initiate")
_READ = Script.named("statemachine.store", "read")
_READ_PACED = Script.named("statemachine.store", "read_paced")
_TRANSITION = Script.named("statemachine.store", "transition")
_DUE = Script.named("statemachine.store", "due")
_CHANGED = Script.named("statemachine.store", "changed")

_DECIDED_ON = (
    *("state", "version", "deadline", "expires_at", "project_id"),
    *("login_subject", "created_at", "completed_at"),
)
_ABSENT = 0  # the version of a session that does not exist; those that do begin with 1
_json = msgspec.json.Encoder()

MAX_LIFETIME_MS = 86_400_000  # the wire's bound for `expires_in_millis`
MAX_REFUSALS = 3  # by partitions of their shares of a budget, until the whole budget counts as used up
UNKNOWN_ADDRESS = "unknown"

_BUDGETS: dict[bytes, InitiationBudget] = {
    b"address": "address",
    b"project": "project",
    b"live_sessions": "live_sessions",
}


class Initiated(NamedTuple):
    """A new session, as its tool needs it."""

    session_id: str
    login_code: str
    polling_code: str
    expires_at: int


class ReadSession(NamedTuple):
    """A session, what its poller must know, and the Redis time (milliseconds) at which they were read."""

    session: Session
    polling_digest: bytes
    now: int
    code_challenge: bytes
    """Empty if its poller need not prove anything more."""


class LoginCodeHolder(NamedTuple):
    """What a login code names: a session, and the public key to which its token is sealed."""

    session_id: str
    sealing_key: bytes


class Transition(NamedTuple):
    """One decision to commit."""

    before: Session
    """The session that was decided on."""
    after: Session
    decision: Decision
    now: int
    """The time decided with: milliseconds since the epoch, Redis time."""
    command: Command | None = None
    """None when the deadline was the trigger."""
    entry_id: str = ""

    @classmethod
    def of_unknown(cls, command: Command, now: int, entry_id: str) -> Self:
        """Return what is committed for a command whose session does not exist: its outcome, if that is still so."""
        absent = Session(command.session_id, "", State.EXPIRED, _ABSENT, 0, 0)
        return cls(absent, absent, Decision(None, Outcome.UNKNOWN), now, command, entry_id)


class Commit(StrEnum):
    """What became of a `Transition`."""

    COMMITTED = "committed"
    CONFLICT = "conflict"
    """The session has changed since it was read: read and decide again."""
    GONE = "gone"
    """The entry was decided before, by another worker or by this call's first sending."""
    LATE = "late"
    """Nobody waits for the outcome any more; the entry is done with, the session as it was."""
    FAILED = "failed"
    """Redis did not run the script; the entry stays pending."""


class SessionStore:
    """Sessions in Redis."""

    def __init__(self, redis: Redis, keys: Keys, settings: Settings) -> None:
        self._redis = redis
        self._keys = keys
        self._settings = settings
        limits = (
            settings.initiations_per_address,
            settings.initiations_per_project,
            settings.live_sessions_per_project,
        )
        self._shares = [-(-limit // len(keys.partitions)) for limit in limits]

    async def initiate(
        self,
        project_id: str,
        client: ClientFacts,
        lifetime_ms: int,
        draw_login_code: Callable[[], str] = new_login_code,
        *,
        address: str = UNKNOWN_ADDRESS,
        code_challenge: str | None = None,
    ) -> Initiated:
        """Write a new pending session, drawing login codes until one is free in the project.

        Each partition holds its share of the budgets; one refusal may be the partition's alone, so that another login
        code, of another partition, is drawn.

        Raises:
            InitiationRefusedError: a budget of the address, or of the project, is used up.

        """
        keys = self._keys
        data = encode_event(SessionInitiated(project_id, lifetime_ms, client))
        refusals = 0
        while True:
            login_code = draw_login_code()
            digest = login_code_digest(project_id, login_code)
            partition = keys.partition_of_login(digest)
            session_id = new_session_id(partition)
            polling_code = new_polling_code(session_id)
            call = _INITIATE.call(
                session=keys.session(session_id),
                login=keys.login(digest),
                deadlines=keys.deadlines(partition),
                events=keys.events(partition),
                of_address=keys.initiations_of_address(partition, address),
                of_project=keys.initiations_in_project(partition, project_id),
                live_sessions=keys.live_sessions(partition, project_id),
                session_id=session_id,
                project_id=project_id,
                polling_digest=polling_code.digest,
                sealing_key=public_key(polling_code.text),
                client=_json.encode(client),
                code_challenge=code_challenge or "",
                lifetime_ms=lifetime_ms,
                longest_ms=MAX_LIFETIME_MS,
                retention_ms=self._settings.retention_ms,
                event_source=EVENT_SOURCE,
                event_data=data,
                window_ms=self._settings.budget_window_ms,
                address_limit=self._shares[0],
                project_limit=self._shares[1],
                live_limit=self._shares[2],
            )
            match await run_script(self._redis, _INITIATE, call):
                case [b"initiated", int(expires_at)]:
                    return Initiated(session_id, login_code, polling_code.text, expires_at)
                case [b"taken"]:
                    continue
                case [b"refused", bytes(budget), int(wait_ms), int(now)]:
                    refusals += 1
                    if refusals == min(MAX_REFUSALS, len(keys.partitions)):
                        raise InitiationRefusedError(_BUDGETS[budget], wait_ms, now)
                case reply:
                    message = f"initiate.lua answered {type(reply).__name__}"
                    raise TypeError(message)

    async def read(self, session_id: str) -> ReadSession | None:
        """Read one session; None if there is none, or no longer. One round trip."""
        call = _READ.call(session=self._keys.session(session_id))
        return _read(session_id, await run_script(self._redis, _READ, call))

    async def read_paced(
        self, code: PollingCode, code_challenge: bytes, pause_ms: int
    ) -> tuple[ReadSession | None, int]:
        """Read a session as `read` does, for a poll that must not follow another within `pause_ms`.

        Returns the milliseconds until the next poll too: 0 unless the session is pending, this poll comes too soon, and
        its code and challenge are the right ones. One round trip.
        """
        call = _READ_PACED.call(
            session=self._keys.session(code.session_id),
            polled=self._keys.polled(code.session_id),
            polling_digest=code.digest,
            code_challenge=code_challenge,
            pause_ms=pause_ms,
            poll=token_hex(8),
        )
        match await run_script(self._redis, _READ_PACED, call):
            case [int(wait_ms), *read]:
                return _read(code.session_id, read), wait_ms
            case _:
                return None, 0

    async def find_by_login_code(
        self, project_id: str, login_code: str, command_id: str | None = None
    ) -> tuple[LoginCodeHolder | None, Outcome | None]:
        """Look up a normalised login code and, in the same round trip, the outcome of a command for it."""
        keys = self._keys
        digest = login_code_digest(project_id, login_code)
        partition = keys.partition_of_login(digest)
        names = [keys.login(digest)]
        if command_id is not None:
            names.append(keys.outcome(partition, command_id))
        found: list[bytes | None] = await self._redis.execute_command("MGET", *names)
        held, outcome = found[0], found[1] if command_id is not None else None
        holder = None
        if held is not None:
            holder = LoginCodeHolder(held[:SESSION_ID_LENGTH].decode(), held[SESSION_ID_LENGTH:])
        return holder, Outcome(outcome.decode()) if outcome else None

    async def read_outcomes(self, partition: int, command_ids: Sequence[str]) -> list[Outcome | None]:
        """Read what became of commands of one partition; None where nothing is known. One round trip."""
        names = [self._keys.outcome(partition, command_id) for command_id in command_ids]
        found: list[bytes | None] = await self._redis.execute_command("MGET", *names)
        return [Outcome(value.decode()) if value else None for value in found]

    async def read_sealed_token(self, session_id: str) -> bytes | None:
        """Read a session's sealed token: there from its completion to the end of its replay window."""
        token: bytes | None = await self._redis.execute_command("GET", self._keys.sealed_token(session_id))
        return token

    async def load(self, session_ids: Sequence[str]) -> dict[str, Session | UnreadableSessionError]:
        """Read many sessions in one pipelined round trip; those that do not exist are left out.

        One that this version cannot read gives its error, so that it does not hide the others.
        """
        async with self._redis.pipeline(transaction=False) as pipeline:
            for session_id in session_ids:
                pipeline.execute_command("HMGET", self._keys.session(session_id), *_DECIDED_ON)
            found = await pipeline.execute()
        return {
            session_id: _session_or_error(session_id, values)
            for session_id, values in zip(session_ids, found, strict=True)
            if values[0] is not None
        }

    async def changed(self, session_ids: Sequence[str]) -> list[str]:
        """Return those sessions of one partition that are not pending, or not there, any more. One round trip."""
        call = _CHANGED.call(sessions=[self._keys.session(session_id) for session_id in session_ids])
        match await run_script(self._redis, _CHANGED, call):
            case [*positions]:
                return [session_ids[position - 1] for position in positions if isinstance(position, int)]
            case _:
                return []

    async def due(self, partition: int, limit: int) -> tuple[int, list[str]]:
        """Return the Redis time in milliseconds and up to `limit` ids of sessions past their deadline."""
        call = _DUE.call(deadlines=self._keys.deadlines(partition), limit=limit)
        match await run_script(self._redis, _DUE, call):
            case [int(now), *ids]:
                return now, [id_.decode() for id_ in ids if isinstance(id_, bytes)]
            case _:
                return 0, []

    async def forget_deadlines(self, partition: int, session_ids: Sequence[str]) -> None:
        """Drop sessions that no longer exist from the index of deadlines."""
        await self._redis.zrem(self._keys.deadlines(partition), *session_ids)

    async def commit(self, transitions: Sequence[Transition]) -> list[Commit]:
        """Commit decisions in order, each atomically, in one pipelined round trip."""
        replies = await run_scripts(self._redis, _TRANSITION, [self._call(transition) for transition in transitions])
        return [_commit(reply) for reply in replies]

    def _call(self, transition: Transition) -> Call:
        before, after, decision, now, command, entry_id = transition
        keys, session_id = self._keys, before.id
        partition = keys.partition_of(session_id)
        sealed_token, command_id, reply_to, last = b"", "", "", 0
        match command:
            case CompleteSession():
                sealed_token = command.sealed_token
            case ConsumeSession():
                last = now + command.patience
        if command is not None:
            command_id, reply_to = command.id, command.reply_to
        event = event_for(before, after, command)
        return _TRANSITION.call(
            session=keys.session(session_id),
            token=keys.sealed_token(session_id),
            outcome_key=keys.outcome(partition, command_id),
            commands=keys.commands(partition),
            deadlines=keys.deadlines(partition),
            events=keys.events(partition),
            replies=keys.replies(partition, reply_to),
            hints=keys.hints(partition),
            live_sessions=keys.live_sessions(partition, before.project_id),
            session_id=session_id,
            state="" if before.version == _ABSENT else before.state,
            version="" if before.version == _ABSENT else before.version,
            target=decision.target or "",
            decided_at=now,
            deadline=after.deadline,
            login_subject=after.login_subject or "",
            sealed_token=sealed_token,
            retention_ms=self._settings.retention_ms,
            replay_window_ms=self._settings.replay_window_ms,
            group=GROUP,
            entry_id=entry_id,
            command_id=command_id,
            outcome=decision.outcome,
            last_ms=last,
            event_source=EVENT_SOURCE,
            event_type=EVENT_TYPES[type(event)] if event else "",
            event_time=rfc3339(now) if event else "",
            event_data=encode_event(event) if event else "",
        )


def _session_or_error(session_id: str, values: list[bytes]) -> Session | UnreadableSessionError:
    try:
        *decided_on, login_subject, created_at, completed_at = values
        return _session(session_id, decided_on, login_subject, completed_at or created_at)
    except (ValueError, TypeError, AttributeError):  # an unknown state, no number, a field that is missing
        return UnreadableSessionError()


def _session(session_id: str, values: list[bytes], login_subject: bytes | None = None, since: bytes = b"0") -> Session:
    state, version, deadline, expires_at, project_id = values
    return Session(
        session_id,
        project_id.decode(),
        State(state.decode()),
        int(version),
        int(deadline),
        int(expires_at),
        login_subject.decode() if login_subject else None,
        int(since),
    )


def _read(session_id: str, reply: Reply) -> ReadSession | None:
    match reply:
        case [
            int(now),
            bytes(state),
            bytes(version),
            bytes(deadline),
            bytes(expires_at),
            bytes(project),
            bytes(digest),
            challenge,
        ]:
            session = _session(session_id, [state, version, deadline, expires_at, project])
            return ReadSession(session, digest, now, challenge if isinstance(challenge, bytes) else b"")
        case _:
            return None


def _commit(reply: Reply | Exception) -> Commit:
    match reply:
        case [bytes(result)]:
            return Commit(result.decode())
        case _:
            return Commit.FAILED
