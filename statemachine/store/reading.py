"""Reads sessions for polls, completions, workers and waiters."""

from collections.abc import Sequence
from secrets import token_hex
from typing import NamedTuple, Self

import msgspec
from redis.asyncio import Redis

from runtime.address import UNKNOWN_ADDRESS, counted_as
from runtime.clock import milliseconds_of
from runtime.codes import SESSION_ID_LENGTH, PollingCode, login_code_digest
from runtime.redis.keys import Keys
from runtime.redis.scripts import Reply, Script, run_script
from statemachine.errors import UnreadableSessionError
from statemachine.lifecycle import State
from statemachine.sealing import PUBLIC_KEY_LENGTH
from statemachine.session import BY_ANONYMOUS, Session, TimedSession
from statemachine.store.outcomes import KeptOutcome
from tokens.family import read_opening

_READ = Script.named("statemachine.store", "read")
_READ_PACED = Script.named("statemachine.store", "read_paced")
_CHANGED = Script.named("statemachine.store", "changed")
_DUE = Script.named("statemachine.store", "due")

DECIDED_ON = (
    *("state", "version", "deadline", "expires_at", "project_id"),
    *("login_subject", "created_at", "completed_at", "address", "opens"),
)
"""The fields of a session that decisions need, in the order in which `enqueue.lua` puts them in an entry."""

_fields: msgspec.json.Decoder[list[str]] = msgspec.json.Decoder(list[str])


class ReadSession(NamedTuple):
    """A session, what proves a poll of it, and the Redis time (milliseconds) at which they were read."""

    session: Session
    polling_digest: bytes
    now: int
    code_challenge: bytes
    """Empty if the session is not bound to its tool: the polling code is proof enough."""


class LoginCodeHolder(NamedTuple):
    """The session of a login code, and the public key to which its token is sealed."""

    session_id: str
    sealing_key: bytes
    device_scope: str | None
    """What an OAuth client asked for; None: the session was begun by `/auth/cli`."""
    anonymous_family: str | None = None
    """The family of the anonymous subject whose tool began the session."""

    @classmethod
    def read(cls, held: bytes) -> Self:
        """Return the holder that the key of a login code holds, as `initiate.lua` writes it."""
        end_of_key = SESSION_ID_LENGTH + PUBLIC_KEY_LENGTH
        session_id, sealing_key = held[:SESSION_ID_LENGTH].decode(), held[SESSION_ID_LENGTH:end_of_key]
        begun_by = held[end_of_key:].decode()
        if begun_by.startswith(BY_ANONYMOUS):
            return cls(session_id, sealing_key, None, begun_by.removeprefix(BY_ANONYMOUS))
        return cls(session_id, sealing_key, begun_by or None)


class Sessions:
    """Reads the sessions in Redis."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def read(self, session_id: str) -> ReadSession | None:
        """Return one session; None if it does not exist, or no longer. One round trip."""
        call = _READ.call(session=self._keys.session(session_id))
        return _read(session_id, await run_script(self._redis, _READ, call))

    async def read_paced(
        self, code: PollingCode, code_challenge: bytes, pause_ms: int
    ) -> tuple[ReadSession | None, int]:
        """Return a session as `read` does, for a poll that must not follow another within `pause_ms`.

        Also returns the milliseconds until the next poll: 0 unless the session is pending, this poll comes too soon,
        and its code and challenge are right. One round trip.
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
    ) -> tuple[LoginCodeHolder | None, KeptOutcome | None]:
        """Return the holder of a normalised login code and, in the same round trip, the outcome of a command for it."""
        keys = self._keys
        digest = login_code_digest(project_id, login_code)
        partition = keys.partition_of_login(digest)
        names = [keys.login(digest)]
        if command_id is not None:
            names.append(keys.outcome(partition, command_id))
        found: list[bytes | None] = await self._redis.execute_command("MGET", *names)
        held, outcome = found[0], found[1] if command_id is not None else None
        holder = LoginCodeHolder.read(held) if held is not None else None
        return holder, KeptOutcome.read(outcome) if outcome else None

    async def read_outcomes(self, partition: int, command_ids: Sequence[str]) -> list[KeptOutcome | None]:
        """Return the outcomes of commands of one partition; None for each that is not known. One round trip."""
        names = [self._keys.outcome(partition, command_id) for command_id in command_ids]
        found: list[bytes | None] = await self._redis.execute_command("MGET", *names)
        return [KeptOutcome.read(value) if value else None for value in found]

    async def read_sealed_token(self, session_id: str) -> bytes | None:
        """Return a session's sealed token. It exists from the completion to the end of the replay window."""
        token: bytes | None = await self._redis.execute_command("GET", self._keys.sealed_token(session_id))
        return token

    async def seconds_since_completed(self, session_id: str) -> int:
        """Return how long ago a session was completed, by Redis' time; 0 if it was not. One round trip."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("HGET", self._keys.session(session_id), "completed_at")
            pipeline.execute_command("TIME")
            completed_at, (seconds, microseconds) = await pipeline.execute()
        now = milliseconds_of(seconds, microseconds)
        return max(0, now - int(completed_at)) // 1000 if completed_at else 0

    async def load(self, session_ids: Sequence[str]) -> dict[str, TimedSession | UnreadableSessionError]:
        """Return many sessions, read in one pipelined round trip; those that do not exist are left out.

        A session that this version cannot read is returned as its error, so that the others can still be read.
        """
        async with self._redis.pipeline(transaction=False) as pipeline:
            for session_id in session_ids:
                pipeline.execute_command("HMGET", self._keys.session(session_id), *DECIDED_ON)
            found = await pipeline.execute()
        return {
            session_id: _loaded(session_id, values)
            for session_id, values in zip(session_ids, found, strict=True)
            if values[0] is not None
        }

    async def remembered(self, partition: int, project_id: str, address: str | None = None) -> list[str]:
        """Return the sessions of a project that count as live, or those of one client address. One round trip."""
        keys = self._keys
        live = keys.live_sessions(partition, project_id)
        if address is not None:
            live = keys.live_sessions_of_address(partition, project_id, counted_as(address))
        found: list[bytes] = await self._redis.execute_command("ZRANGE", live, 0, -1)
        return [session_id.decode() for session_id in found]

    async def changed(self, session_ids: Sequence[str]) -> list[str]:
        """Return the sessions of one partition that are no longer pending, or no longer exist. One round trip."""
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
        """Remove sessions that no longer exist from the index of deadlines."""
        await self._redis.zrem(self._keys.deadlines(partition), *session_ids)


def session_in_entry(session_id: str, fields: bytes) -> TimedSession | None:
    """Return the session as `enqueue.lua` saw it when it recorded a command; None if this version cannot read that.

    It may have changed since. To decide on it is safe, because the commit compares its state and version.
    """
    try:
        return _timed_session(session_id, _fields.decode(fields)[: len(DECIDED_ON)])
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors, too
        return None


def _loaded(session_id: str, values: Sequence[bytes | None]) -> TimedSession | UnreadableSessionError:
    try:
        return _timed_session(session_id, [value.decode() if value else "" for value in values])
    except ValueError:
        return UnreadableSessionError()


def _timed_session(session_id: str, values: Sequence[str]) -> TimedSession:
    """Return the session with these values of `DECIDED_ON`, '' for a field that it does not have.

    Raises:
        ValueError: an unknown state, no number, or a field that is missing.

    """
    state, version, deadline, expires_at, project_id, login_subject, created_at, completed_at, address, opens = values
    if not project_id:
        raise ValueError
    return TimedSession(
        session_id,
        project_id,
        State(state),
        int(version),
        int(deadline),
        int(expires_at),
        login_subject or None,
        since=int(completed_at or created_at),
        # A session of a version that kept none is counted for its project alone.
        address=address or UNKNOWN_ADDRESS,
        opens=read_opening(opens),
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
            session = Session(
                session_id, project.decode(), State(state.decode()), int(version), int(deadline), int(expires_at)
            )
            return ReadSession(session, digest, now, challenge if isinstance(challenge, bytes) else b"")
        case _:
            return None
