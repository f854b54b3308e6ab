"""Publishes audit events on the `events` stream of the project's partition, also those about a session."""

import secrets

import structlog
from cachetools import TTLCache
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from events.cloud_event import EVENT_SOURCE, encode_event
from projects.audit_events import (
    AUDIT_TYPES,
    MAX_PER_WINDOW,
    KeyRotated,
    ProjectChanged,
    Refusal,
)
from runtime.clock import rfc3339
from runtime.redis.keys import Keys
from runtime.redis.scripts import Script, run_script

_AUDIT = Script.named("projects", "audit")
_TELL_CHANGE = Script.named("projects", "tell_change")
_log = structlog.get_logger("projects")

REMEMBERED_CAUSES = 10_000  # per process; about a megabyte


class Refusals:
    """Publishes audit events for refused requests, once per cause and window."""

    def __init__(self, redis: Redis, keys: Keys, *, window_ms: int, retention_ms: int) -> None:
        self._redis = redis
        self._keys = keys
        self._window_ms = window_ms
        self._retention_ms = retention_ms
        # Published, or beyond the limit: asking Redis again within the window would change nothing.
        self._told: TTLCache[str, None] = TTLCache(REMEMBERED_CAUSES, window_ms / 1000)

    async def tell(self, refusal: Refusal, cause: str, now: int, session_id: str | None = None) -> None:
        """Publish a refusal at `now` (Redis time, milliseconds), unless its cause was published in this window."""
        type_ = AUDIT_TYPES[type(refusal)]
        mark = f"{type_}:{refusal.project_id}:{cause}"
        if mark in self._told:
            return
        keys, partition = self._keys, self._keys.partition_of_project(refusal.project_id)
        call = _AUDIT.call(
            audited=keys.audited(partition, mark),
            told=keys.audit_events(partition, refusal.project_id, type_),
            events=keys.events(partition),
            window_ms=self._window_ms,
            most=MAX_PER_WINDOW,
            retention_ms=self._retention_ms,
            now=now,
            event_id=secrets.token_hex(16),
            event_source=EVENT_SOURCE,
            event_type=type_,
            event_time=rfc3339(now),
            event_data=encode_event(refusal),
            subject=session_id or refusal.project_id,
            project_id=refusal.project_id,
        )
        try:
            await run_script(self._redis, _AUDIT, call)
        except OutOfMemoryError:  # the request is refused anyway
            _log.warning("an audit event was not published: redis is at its maxmemory", type=type_)
            return
        self._told[mark] = None


async def tell_change(redis: Redis, keys: Keys, change: KeyRotated | ProjectChanged, now: int) -> None:
    """Publish a change to a project that was made at `now` (Redis time, milliseconds).

    Projects are in another slot than the events, so no script can do both: if the process dies between the two, the
    change is made and never published.
    """
    fields = (
        *("specversion", "1.0", "id", secrets.token_hex(16), "source", EVENT_SOURCE),
        *("type", AUDIT_TYPES[type(change)], "subject", change.project_id, "time", rfc3339(now)),
        *("projectid", change.project_id, "data", encode_event(change)),
    )
    events = keys.events(keys.partition_of_project(change.project_id))
    await run_script(redis, _TELL_CHANGE, _TELL_CHANGE.call(events=events, fields=fields))
