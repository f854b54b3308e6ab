"""Writes what needs no decision: commands on the stream, cut-offs of subjects, families that no login hands over."""

import secrets

import msgspec
from redis.asyncio import Redis

from events.cloud_event import EVENT_SOURCE, encode_event
from runtime.clock import rfc3339
from runtime.redis.keys import Keys
from runtime.redis.scripts import Script, run_script, run_scripts
from tokens.commands import FamilyCommand
from tokens.events import TOKEN_EVENT_TYPES, SubjectLoggedOut, event_id, opened_event
from tokens.family import LONGEST_LIFE_MS, Family
from tokens.store import record
from tokens.store.committing import TokenRetention

_RECORD = Script.named("tokens.store", "record")
_LOG_OUT = Script.named("tokens.store", "log_out")
_OPEN = Script.named("tokens.store", "open")
_PUBLISH = Script.named("tokens.store", "publish")

PUBLISHED_MARK_MS = 60_000  # longer than redis-py re-sends a script

_json = msgspec.json.Encoder()


async def record_command(
    redis: Redis, keys: Keys, command: FamilyCommand, *, backlog_limit: int, outcome_ms: int
) -> bool:
    """Record a command and return True; False if the backlog is full and nothing was recorded. One round trip."""
    partition = keys.partition_of(command.family_id)
    call = _RECORD.call(
        commands=keys.commands(partition),
        outcome_key=keys.outcome(partition, command.id),
        command=_json.encode(command),
        backlog_limit=backlog_limit,
        outcome_ms=outcome_ms,
    )
    return await run_script(redis, _RECORD, call) == [b"recorded"]


class Subjects:
    """Logs subjects out everywhere."""

    def __init__(self, redis: Redis, keys: Keys, retention: TokenRetention) -> None:
        self._redis = redis
        self._keys = keys
        self._retention = retention

    async def log_out(self, project_id: str, subject: str) -> int:
        """Kill all that was handed over for a subject until now; return Redis' time in milliseconds.

        One cut-off a partition, in one pipelined round trip, and then one event. No family is looked at, so it catches
        a login that is completed and not picked up yet. It can be repeated: if a partition fails, the others are cut
        off already. A process that dies before the event leaves the cut-offs, and nothing published.

        Raises:
            RedisError: a partition could not be written; the subject may not be logged out there.

        """
        keys = self._keys
        calls = [
            _LOG_OUT.call(cutoff=keys.cutoff(partition, project_id, subject), life_ms=LONGEST_LIFE_MS)
            for partition in keys.partitions
        ]
        cut: list[int] = []
        for reply in await run_scripts(self._redis, _LOG_OUT, calls):
            if isinstance(reply, Exception):
                raise reply
            if isinstance(reply, int):
                cut.append(reply)
        at, partition, id_ = max(cut), keys.partition_of_project(project_id), secrets.token_hex(16)
        event = SubjectLoggedOut(project_id, subject)
        call = _PUBLISH.call(
            audited=keys.audited(partition, id_),
            events=keys.events(partition),
            mark_ms=PUBLISHED_MARK_MS,
            retention_ms=self._retention.remembered_ms,
            events_max=self._retention.events_max,
            fields=[
                *("specversion", "1.0", "id", id_, "source", EVENT_SOURCE, "type", TOKEN_EVENT_TYPES[type(event)]),
                *("subject", project_id, "time", rfc3339(at), "projectid", project_id, "data", encode_event(event)),
            ],
        )
        await run_script(self._redis, _PUBLISH, call)
        return at


async def open_family(redis: Redis, keys: Keys, family: Family, now: int, retention: TokenRetention) -> None:
    """Write a family that no login hands over: one that a backend asks for, or that of an anonymous subject."""
    partition = keys.partition_of(family.id)
    event = opened_event(family)
    call = _OPEN.call(
        family=keys.family(family.id),
        families=keys.families(partition, family.project_id, family.subject),
        events=keys.events(partition),
        family_id=family.id,
        dies_at=family.dies_at,
        forgotten_at=family.dies_at + retention.remembered_ms,
        retention_ms=retention.remembered_ms,
        events_max=retention.events_max,
        event_source=EVENT_SOURCE,
        event_type=TOKEN_EVENT_TYPES[type(event)],
        event_id=event_id(family),
        event_time=rfc3339(now),
        event_data=encode_event(event),
        project_id=family.project_id,
        fields=record.written(family),
    )
    await run_script(redis, _OPEN, call)
