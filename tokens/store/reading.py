"""Reads families: for refreshes, introspections, lists and workers. Nothing is written but the time of a refresh."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from redis.asyncio import Redis

from runtime.clock import milliseconds_of
from runtime.redis.keys import Keys
from runtime.redis.scripts import Script, run_script
from tokens.errors import UnreadableFamilyError
from tokens.family import Family, is_alive
from tokens.store import record

_TOUCH = Script.named("tokens.store", "touch")

TOUCH_EVERY_MS = 60_000  # a family that does not rotate is written at most once a minute, however often it is refreshed


class ReadFamily(NamedTuple):
    """A family, and the Redis time in milliseconds at which it was read."""

    family: Family | None
    now: int


class LoadedFamilies(NamedTuple):
    """Many families, and the Redis time in milliseconds at which they were read."""

    by_id: dict[str, Family | UnreadableFamilyError]
    """Those that do not exist are left out. One that this version cannot read is its error."""
    now: int


class Families:
    """Reads the families in Redis."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def read(self, family_id: str, *, with_cutoff: bool = True) -> ReadFamily:
        """Return a family, None if it does not exist (any more). Two round trips, one without its cut-off.

        Raises:
            UnreadableFamilyError: a later version wrote it.

        """
        loaded = await self.load([family_id], with_cutoffs=with_cutoff)
        family = loaded.by_id.get(family_id)
        if isinstance(family, UnreadableFamilyError):
            raise family
        return ReadFamily(family, loaded.now)

    async def read_of(self, project_id: str, family_id: str, *, with_cutoff: bool = True) -> ReadFamily:
        """Return a family of a project as `read` does; None also if it is another project's."""
        family, now = await self.read(family_id, with_cutoff=with_cutoff)
        return ReadFamily(family if family is not None and family.project_id == project_id else None, now)

    async def load(self, family_ids: Sequence[str], *, with_cutoffs: bool = True) -> LoadedFamilies:
        """Return many families of one or more partitions, in two pipelined round trips, one without their cut-offs.

        A decision on a family without its cut-off must be committed, which compares it, or be made again.
        """
        keys = self._keys
        async with self._redis.pipeline(transaction=False) as pipeline:
            for family_id in family_ids:
                pipeline.execute_command("HMGET", keys.family(family_id), *record.field_names())
            pipeline.execute_command("TIME")
            *rows, (seconds, microseconds) = await pipeline.execute()
        read = {id_: record.read(id_, values) for id_, values in zip(family_ids, rows, strict=True)}
        families = {id_: family for id_, family in read.items() if family is not None}
        if with_cutoffs:
            families = await self._with_cutoffs(families)
        return LoadedFamilies(families, milliseconds_of(seconds, microseconds))

    async def with_cutoff(self, family: Family) -> Family:
        """Return a family that was read without its cut-off, with it."""
        partition = self._keys.partition_of(family.id)
        found: bytes | None = await self._redis.execute_command(
            "GET", self._keys.cutoff(partition, family.project_id, family.subject)
        )
        return family if found is None else msgspec.structs.replace(family, cutoff=int(found))

    async def _with_cutoffs(
        self, families: Mapping[str, Family | UnreadableFamilyError]
    ) -> dict[str, Family | UnreadableFamilyError]:
        readable = [family for family in families.values() if isinstance(family, Family)]
        if not readable:
            return dict(families)
        async with self._redis.pipeline(transaction=False) as pipeline:
            for family in readable:
                partition = self._keys.partition_of(family.id)
                pipeline.execute_command("GET", self._keys.cutoff(partition, family.project_id, family.subject))
            cutoffs: list[bytes | None] = await pipeline.execute()
        return dict(families) | {
            family.id: msgspec.structs.replace(family, cutoff=int(cutoff))
            for family, cutoff in zip(readable, cutoffs, strict=True)
            if cutoff is not None
        }

    async def of_subject(self, project_id: str, subject: str) -> list[Family]:
        """Return a subject's families that open doors now, the latest opened first. Three pipelined round trips."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for partition in self._keys.partitions:
                pipeline.execute_command("ZRANGE", self._keys.families(partition, project_id, subject), 0, -1)
            found: list[list[bytes]] = await pipeline.execute()
        ids = [id_.decode() for of_partition in found for id_ in of_partition]
        if not ids:
            return []
        loaded = await self.load(ids)
        alive = [
            family for family in loaded.by_id.values() if isinstance(family, Family) and is_alive(family, loaded.now)
        ]
        return sorted(alive, key=lambda family: family.opened_at, reverse=True)

    async def touch(self, family: Family, now: int, retention_ms: int) -> None:
        """Note the refresh of a family that does not rotate, at most once a minute: its idle time starts again.

        State and version stay as they are, so that no decision conflicts.
        """
        if now - family.refreshed_at < TOUCH_EVERY_MS:
            return
        dies_at = min(now + family.idle_ms, family.ends_at)
        call = _TOUCH.call(
            family=self._keys.family(family.id),
            families=self._keys.families(self._keys.partition_of(family.id), family.project_id, family.subject),
            family_id=family.id,
            version=family.version,
            refreshed_at=now,
            dies_at=dies_at,
            forgotten_at=dies_at + retention_ms,
        )
        await run_script(self._redis, _TOUCH, call)

    async def read_successor(self, family_id: str) -> bytes | None:
        """Return a family's newest token, sealed to the one before; None once the grace is over."""
        sealed: bytes | None = await self._redis.execute_command("GET", self._keys.successor(family_id))
        return sealed
