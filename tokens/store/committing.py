"""Commits decisions about families. Nothing else changes the state of a family after it was opened."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from redis.asyncio import Redis

from events.cloud_event import EVENT_SOURCE, encode_event
from runtime.clock import rfc3339
from runtime.redis.keys import GROUP, Keys
from runtime.redis.scripts import Call, Reply, Script, run_scripts
from tokens.commands import FamilyCommand, RefreshFamily
from tokens.events import TOKEN_EVENT_TYPES, event_for, event_id
from tokens.family import Family
from tokens.lifecycle import Decision, Outcome
from tokens.store import record

_FAMILY = Script.named("tokens.store", "family")


class FamilyChange(NamedTuple):
    """One decision to commit."""

    before: Family | None
    """The family on which the decision was made; None if there is none, so that only the outcome is recorded."""
    after: Family | None
    decision: Decision
    now: int
    """The time of the decision: milliseconds since the epoch, Redis time."""
    command: FamilyCommand
    entry_id: str


class FamilyCommit(StrEnum):
    """The result of committing a `FamilyChange`."""

    COMMITTED = "committed"
    CONFLICT = "conflict"
    """The family has changed since it was read, or its subject was logged out: read and decide again."""
    GONE = "gone"
    """The entry was decided before, by another worker or by the first sending of this call."""
    LATE = "late"
    """No request waits for the successor any more. The entry is deleted, and the token stays the newest."""
    FAILED = "failed"
    """Redis did not run the script; the entry stays pending."""


class TokenRetention(NamedTuple):
    """How long things are kept. Times are in milliseconds."""

    grace_ms: int
    """How long after a rotation the token before may ask for its successor again."""
    outcome_ms: int
    """The outcome of a command."""
    remembered_ms: int
    """A family, after its end; an event."""
    events_max: int
    """The number of events of one partition."""


class FamilyCommitting:
    """Commits decisions."""

    def __init__(self, redis: Redis, keys: Keys, retention: TokenRetention) -> None:
        self._redis = redis
        self._keys = keys
        self._retention = retention
        self.grace_ms = retention.grace_ms

    async def commit(self, changes: Sequence[FamilyChange]) -> list[FamilyCommit]:
        """Commit decisions in order, each atomically, in one pipelined round trip; return the result of each."""
        replies = await run_scripts(self._redis, _FAMILY, [self._call(change) for change in changes])
        return [_commit(reply) for reply in replies]

    def _call(self, change: FamilyChange) -> Call:
        before, after, decision, now, command, entry_id = change
        keys, family_id, retention = self._keys, command.family_id, self._retention
        partition = keys.partition_of(family_id)
        project_id, subject = (before.project_id, before.subject) if before else ("", "")
        event = event_for(before, after, command, decision) if before and after else None
        rotates = decision.outcome is Outcome.ROTATED
        return _FAMILY.call(
            family=keys.family(family_id),
            successor=keys.successor(family_id),
            families=keys.families(partition, project_id, subject),
            cutoff=keys.cutoff(partition, project_id, subject),
            commands=keys.commands(partition),
            outcome_key=keys.outcome(partition, command.id),
            events=keys.events(partition),
            replies=keys.replies(partition, command.reply_to),
            family_id=family_id,
            state=before.state if before else "",
            version=before.version if before else "",
            cutoff_at="" if before is None or before.cutoff is None else before.cutoff,
            target=decision.target or "",
            sealed_successor=command.sealed_successor if rotates and isinstance(command, RefreshFamily) else b"",
            grace_ms=retention.grace_ms,
            last_ms=now + command.patience if rotates and isinstance(command, RefreshFamily) else 0,
            dies_at=after.dies_at if after else 0,
            forgotten_at=after.dies_at + retention.remembered_ms if after else 0,
            retention_ms=retention.remembered_ms,
            events_max=retention.events_max,
            group=GROUP,
            entry_id=entry_id,
            command_id=command.id,
            outcome=decision.outcome,
            outcome_ms=retention.outcome_ms,
            event_source=EVENT_SOURCE,
            event_type=TOKEN_EVENT_TYPES[type(event)] if event else "",
            event_id=event_id(after) if event and after else "",
            event_time=rfc3339(now) if event else "",
            event_data=encode_event(event) if event else "",
            project_id=project_id,
            fields=record.written(after, before) if before and after and decision.target else [],
        )


def _commit(reply: Reply | Exception) -> FamilyCommit:
    match reply:
        case [bytes(result)]:
            return FamilyCommit(result.decode())
        case _:
            return FamilyCommit.FAILED
