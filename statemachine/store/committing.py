"""Commits decisions. Nothing else changes the state of a session after it was initiated."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Self

import msgspec
from redis.asyncio import Redis

from events.cloud_event import EVENT_SOURCE, encode_event
from runtime.address import counted_as
from runtime.clock import rfc3339
from runtime.redis.keys import GROUP, Keys
from runtime.redis.scripts import Argument, Call, Reply, Script, run_scripts
from statemachine.commands import Command, CompleteSession, ConsumeSession, ExpireSession
from statemachine.events import EVENT_TYPES, event_for
from statemachine.lifecycle import WAITED_IN, Decision, Outcome, State
from statemachine.session import TimedSession
from statemachine.store.retention import Retention
from tokens.events import opened_event
from tokens.family import Opening
from tokens.family import opened as opened_family
from tokens.store import record

_TRANSITION = Script.named("statemachine.store", "transition")
_json = msgspec.json.Encoder()
_ABSENT = 0  # the version of a session that does not exist; versions start with 1


class Transition(NamedTuple):
    """One decision to commit."""

    before: TimedSession
    """The session on which the decision was made."""
    after: TimedSession
    decision: Decision
    now: int
    """The time of the decision: milliseconds since the epoch, Redis time."""
    command: Command | None = None
    """None when the deadline was the trigger."""
    entry_id: str = ""

    @classmethod
    def of_unknown(cls, command: Command, now: int, entry_id: str) -> Self:
        """Return the transition for a command whose session does not exist: it only records the outcome."""
        absent = TimedSession(command.session_id, "", State.EXPIRED, _ABSENT, 0, 0, since=0)
        return cls(absent, absent, Decision(None, Outcome.UNKNOWN), now, command, entry_id)


class Commit(StrEnum):
    """The result of committing a `Transition`."""

    COMMITTED = "committed"
    CONFLICT = "conflict"
    """The session has changed since it was read: read and decide again."""
    GONE = "gone"
    """The entry was decided before, by another worker or by the first sending of this call."""
    LATE = "late"
    """No poll waits for the outcome any more. The entry is deleted, and the session does not change."""
    LOGGED_OUT = "logged_out"
    """The subject was logged out everywhere since the completion, so nothing is handed over: decide again, as if the
    session were overdue."""
    FAILED = "failed"
    """Redis did not run the script; the entry stays pending."""


class Committing:
    """Commits decisions."""

    def __init__(self, redis: Redis, keys: Keys, retention: Retention, *, replay_window_ms: int) -> None:
        self._redis = redis
        self._keys = keys
        self._retention = retention
        self._events_max = retention.events_share(len(keys.partitions))
        self._replay_window_ms = replay_window_ms
        self._of_partition = [
            (keys.commands(partition), keys.deadlines(partition), keys.events(partition), keys.hints(partition))
            for partition in keys.partitions
        ]

    async def commit(self, transitions: Sequence[Transition]) -> list[Commit]:
        """Commit decisions in order, each atomically, in one pipelined round trip; return the result of each."""
        replies = await run_scripts(self._redis, _TRANSITION, [self._call(transition) for transition in transitions])
        return [_commit(reply) for reply in replies]

    def _call(self, transition: Transition) -> Call:
        before, after, decision, now, command, entry_id = transition
        keys, session_id, project_id = self._keys, before.id, before.project_id
        partition = keys.partition_of(session_id)
        commands, deadlines, events, hints = self._of_partition[partition]
        sealed_token, command_id, reply_to, last = b"", "", "", 0
        opened: Sequence[str] = ()
        opening: Sequence[Argument] = ()
        match command:
            case CompleteSession():
                sealed_token = command.sealed_token
                if command.opens is not None:
                    opening = (_json.encode(command.opens),)
            case ConsumeSession():
                last = now + command.patience
        if command is not None:
            command_id, reply_to = command.id, command.reply_to
        forgotten_at: int | str = ""
        live_until: int | str = ""
        event_type, event_time, event_data, hint = "", "", b"", ""
        event = event_for(before, after, command)
        if event is not None:
            event_type, event_time, event_data = EVENT_TYPES[type(event)], rfc3339(now), encode_event(event)
            hint = session_id if before.state in WAITED_IN else ""
            forgotten_at = self._retention.forgotten_at(before, after, now)
            # A session that was consumed, or ended by an operator, is kept but does not count as live: an attacker can
            # do neither.
            if after.state is not State.CONSUMED and not isinstance(command, ExpireSession):
                live_until = forgotten_at
            elif after.state is State.CONSUMED and before.opens is not None:
                opened, opening = self._opening(before, before.opens, now)
        return _TRANSITION.call(
            session=keys.session(session_id),
            token=keys.sealed_token(session_id),
            outcome_key=keys.outcome(partition, command_id),
            commands=commands,
            deadlines=deadlines,
            events=events,
            replies=keys.replies(partition, reply_to),
            hints=hints,
            live_sessions=keys.live_sessions(partition, project_id),
            live_of_address=keys.live_sessions_of_address(partition, project_id, counted_as(before.address)),
            claimable=keys.claimable(session_id),
            opened=opened,
            session_id=session_id,
            state="" if before.version == _ABSENT else before.state,
            version="" if before.version == _ABSENT else before.version,
            target=decision.target or "",
            decided_at=now,
            deadline=after.deadline,
            login_subject=after.login_subject or "",
            sealed_token=sealed_token,
            forgotten_at=forgotten_at,
            live_until=live_until,
            retention_ms=self._retention.remembered_ms,
            events_max=self._events_max,
            replay_window_ms=self._replay_window_ms,
            group=GROUP,
            entry_id=entry_id,
            command_id=command_id,
            outcome=decision.outcome,
            last_ms=last,
            hint=hint,
            event_source=EVENT_SOURCE,
            event_type=event_type,
            event_time=event_time,
            event_data=event_data,
            opening=opening,
        )

    def _opening(self, completed: TimedSession, opens: Opening, now: int) -> tuple[Sequence[str], Sequence[Argument]]:
        """Return the keys and the arguments by which the hand-over of a session opens its family."""
        keys = self._keys
        family = opened_family(completed.id, completed.project_id, opens, completed.since, now)
        of_subject = (keys.partition_of(family.id), family.project_id, family.subject)
        dies_at, event = family.dies_at, encode_event(opened_event(family))
        return (
            (keys.family(family.id), keys.families(*of_subject), keys.cutoff(*of_subject)),
            (family.opened_at, dies_at, dies_at + self._retention.remembered_ms, event, *record.written(family)),
        )


_COMMITS = {commit.value.encode(): commit for commit in Commit}


def _commit(reply: Reply | Exception) -> Commit:
    match reply:
        case [bytes(result)]:
            return _COMMITS[result]
        case _:
            return Commit.FAILED
