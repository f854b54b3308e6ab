"""Reads the public streams of all partitions as one log, in time order, from a cursor on.

Reading changes nothing in Redis, and holds a bounded number of entries in memory, however many there are.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Container, Mapping, Sequence
from typing import NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError

from events.cloud_event import CloudEvent
from events.cursor import END, START, Cursor, EntryId
from runtime.redis.connections import REDIS_TROUBLE
from runtime.redis.keys import Keys

READ_ENTRIES = 1_024  # per read, over all partitions: about half a megabyte

_BACKOFF = ExponentialWithJitterBackoff(base=0.05, cap=2.0)

RawEntry = tuple[bytes, Mapping[bytes, bytes]]


class LoggedEvent(NamedTuple):
    """An event and its place in the log."""

    event: CloudEvent
    project_id: str
    partition: int
    entry_id: EntryId
    cursor: Cursor
    """Where to continue after it."""


class Batch(NamedTuple):
    """The result of one read."""

    events: list[LoggedEvent]
    cursor: Cursor
    complete: bool
    """Whether there were no further events at the time of the read."""
    entries: int
    """The number of entries that were read for it."""


class _Data(msgspec.Struct):
    project_id: str


_data = msgspec.json.Decoder(_Data)


def merge(
    cursor: Cursor, found: Mapping[int, Sequence[RawEntry]], count: int, projects: Container[str] | None = None
) -> Batch:
    """Return the entries after `cursor`, found by partition with at most `count` of each, as one batch in time order.

    A partition that returned `count` entries may have more, so later entries of the others are left for the next read.
    Entries that are not events are skipped and, if `projects` is given, so are the events of all other projects.
    """
    rows = [
        (EntryId.parse(id_.decode()), partition, fields)
        for partition, entries in found.items()
        for id_, fields in entries
    ]
    bounds = [EntryId.parse(entries[-1][0].decode()) for entries in found.values() if len(entries) >= count]
    bound = min(bounds, default=None)
    events = []
    positions = list(cursor)
    for id_, partition, fields in sorted(rows, key=lambda row: row[:2]):
        if bound is not None and id_ > bound:
            break
        positions[partition] = id_
        if (event := _event(fields, projects)) is not None:
            events.append(LoggedEvent(*event, partition, id_, tuple(positions)))
    return Batch(events, tuple(positions), bound is None, len(rows))


def _event(fields: Mapping[bytes, bytes], projects: Container[str] | None) -> tuple[CloudEvent, str] | None:
    """Return an entry's event and its project.

    None if the entry is not an event that this version can read, or if it is not of `projects`. The attribute shows
    that before the event is decoded, which is three quarters of the work here; entries of older versions lack it. An
    entry whose data and attribute name different projects is not an event of either.
    """
    try:
        named = fields.get(b"projectid")
        if projects is not None and named is not None and named.decode() not in projects:
            return None
        project_id = _data.decode(fields[b"data"]).project_id
        if named not in (None, project_id.encode()) or (projects is not None and project_id not in projects):
            return None
        attributes: dict[str, object] = {name.decode(): value.decode() for name, value in fields.items()}
        attributes["data"] = msgspec.Raw(fields[b"data"])
        return msgspec.convert(attributes, CloudEvent, strict=False), project_id
    except (KeyError, ValueError, msgspec.MsgspecError):
        return None


class EventLog:
    """The `events` streams of all partitions. Every method takes the connection that it uses."""

    def __init__(self, keys: Keys) -> None:
        self.partitions = len(keys.partitions)
        self._streams = [keys.events(partition) for partition in keys.partitions]
        self._partition_of = {stream.encode(): partition for partition, stream in enumerate(self._streams)}

    async def end(self, redis: Redis) -> Cursor:
        """Return the cursor at the end of the log: every event after it is new."""
        return await self.after(redis, END)

    async def after(self, redis: Redis, last: EntryId) -> Cursor:
        """Return the cursor before the entries with ids higher than `last`."""
        # It names entries that exist, so that `has_all_after` can look for them later.
        async with redis.pipeline(transaction=False) as pipeline:
            for stream in self._streams:
                pipeline.execute_command("XREVRANGE", stream, str(last), "-", "COUNT", 1)
            found: list[list[RawEntry]] = await pipeline.execute()
        return tuple(EntryId.parse(entries[0][0].decode()) if entries else START for entries in found)

    async def has_all_after(self, redis: Redis, cursor: Cursor) -> bool:
        """Return whether no entry after a cursor has been trimmed; False also if that cannot be known any more.

        The entry that a cursor names is trimmed before those after it: while it exists, they exist too.
        """
        async with redis.pipeline(transaction=False) as pipeline:
            for stream, id_ in zip(self._streams, cursor, strict=True):
                if id_ == START:
                    pipeline.execute_command("XINFO STREAM", stream)
                else:
                    pipeline.execute_command("XRANGE", stream, str(id_), str(id_), "COUNT", 1)
            replies = await pipeline.execute(raise_on_error=False)
        for id_, reply in zip(cursor, replies, strict=True):
            if isinstance(reply, RedisError):
                if id_ != START or not str(reply).startswith("no such key"):
                    raise reply
            elif not reply or (id_ == START and reply["entries-added"] != reply["length"]):
                return False
        return True

    async def read(
        self,
        redis: Redis,
        cursor: Cursor,
        block_ms: int | None = None,
        *,
        entries: int = READ_ENTRIES,
        projects: Container[str] | None = None,
    ) -> Batch:
        """Return the next events after a cursor, only those of `projects`; wait up to `block_ms` if there are none.

        It reads up to `entries` over all partitions, and at least one of each. One command reads all partitions at one
        instant, so a later read finds nothing older, as long as one Redis holds them all.
        """
        block = () if block_ms is None else ("BLOCK", block_ms)
        count = max(1, entries // self.partitions)
        reply: dict[bytes, list[RawEntry]] | None = await redis.execute_command(
            *("XREAD", "COUNT", count, *block),
            *("STREAMS", *self._streams, *(str(id_) for id_ in cursor)),
        )
        found = {self._partition_of[stream]: entries for stream, entries in (reply or {}).items()}
        return merge(cursor, found, count, projects)

    async def follow(
        self,
        reader: Redis,
        cursor: Cursor,
        block_ms: int,
        on_trouble: Callable[[Exception | None], None],
        *,
        projects: Container[str] | None = None,
    ) -> AsyncGenerator[Batch]:
        """Read for ever and yield batches; an empty one if there is no event for `block_ms`.

        While Redis cannot be reached it tries again, and then continues where it was: no event is left out or repeated.
        `on_trouble` is called with the first error of a series, and with None when the series is over.
        """
        failures = 0
        while True:
            try:
                batch = await self.read(reader, cursor, block_ms, projects=projects)
            except REDIS_TROUBLE as error:
                failures += 1
                if failures == 1:
                    on_trouble(error)
                await asyncio.sleep(_BACKOFF.compute(failures))
                continue
            if failures:
                failures = 0
                on_trouble(None)
            cursor = batch.cursor
            yield batch
