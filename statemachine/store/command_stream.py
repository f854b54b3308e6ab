"""The inbound stream of commands, its consumer group, and the entries that no worker could decide.

The script that commits an entry deletes it, so the length of a stream is its backlog. The stream is never trimmed:
that would drop entries that no worker has read.
"""

import asyncio
from typing import Any, NamedTuple

from redis.asyncio import Redis

from runtime.redis.keys import GROUP, Keys
from runtime.redis.partitions import EachPartition
from runtime.redis.scripts import Script, run_script
from statemachine.commands import Command, encode_command
from statemachine.lifecycle import CHANGED_BY, Outcome, State

_ENQUEUE = Script.named("statemachine.store", "enqueue")
_DEAD_LETTER = Script.named("statemachine.store", "dead_letter")
_REMOVE_CONSUMER = Script.named("statemachine.store", "remove_consumer")
_ENSURE_GROUP = Script.named("statemachine.store", "ensure_group")
_BACKLOG = Script.named("statemachine.store", "backlog")
_WANTED = {trigger: f" {' '.join(sorted(states))} " for trigger, states in CHANGED_BY.items()}

DEAD_LETTERS_KEPT = 10_000  # per partition; enough to investigate an accident
HANDED_BACK = 10_000  # entries; many times more than a worker can have in hand
HANDED_BACK_IDLE = 3_600_000  # ms; XCLAIM sets this idle time, which exceeds any min-idle

_RawEntry = tuple[bytes, dict[bytes, bytes]]


class Recorded(NamedTuple):
    """The command is on the stream."""


class Repeated(NamedTuple):
    """The same command was recorded before, with this outcome so far."""

    outcome: Outcome


class Reused(NamedTuple):
    """Nothing was recorded: another request has the command's id."""


class Moved(NamedTuple):
    """Nothing was recorded: the session is in another state than the command asks for, or past its deadline."""

    state: State | None
    overdue: bool


class Busy(NamedTuple):
    """Nothing was recorded: the backlog is full."""


Enqueued = Recorded | Repeated | Reused | Moved | Busy


class Entry(NamedTuple):
    """An entry as a worker reads it."""

    partition: int
    id: str
    command: bytes
    deliveries: int = 1
    """How often it has been delivered, including this time."""
    session: bytes = b""
    """The session as it was when the command was recorded (`reading.session_in_entry`); empty in an entry of an older
    version, or of a replayed dead letter."""

    @property
    def recorded_at(self) -> int:
        """The Redis time at which it was recorded: the milliseconds of its id."""
        return int(self.id.partition("-")[0])


class Backlog(NamedTuple):
    """The commands of a partition. Ages are milliseconds since the entry was recorded, None without such an entry."""

    entries: int
    """Undecided commands, read or not."""
    pending: int
    """Undecided commands that a worker has read."""
    oldest_unread_ms: int | None
    oldest_pending_ms: int | None
    dead_letters: int


class CommandStream:
    """The `commands` streams of all partitions."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._groups = EachPartition("groups", self.ensure_group, keys.partitions)
        self._making_groups = (
            asyncio.Lock()
        )  # several loops can find a group missing at once, but a step belongs to one of them
        self._partition_of = {keys.commands(partition).encode(): partition for partition in keys.partitions}

    async def enqueue(
        self, command: Command, *, backlog_limit: int, outcome_ms: int, fingerprint: str = ""
    ) -> Enqueued:
        """Record a command, at most once per command id, for a session that it would change. One round trip.

        If the id is derived from an Idempotency-Key, `fingerprint` distinguishes the requests that use this key. It is
        visible ASCII, useless to an attacker who reads it, and kept with the outcome for `outcome_ms`.
        """
        partition = self._keys.partition_of(command.session_id)
        call = _ENQUEUE.call(
            commands=self._keys.commands(partition),
            outcome_key=self._keys.outcome(partition, command.id),
            session=self._keys.session(command.session_id),
            command=encode_command(command),
            wanted=_WANTED[command.trigger],
            backlog_limit=backlog_limit,
            outcome_ms=outcome_ms,
            fingerprint=fingerprint,
        )
        match await run_script(self._redis, _ENQUEUE, call):
            case [b"recorded"]:
                return Recorded()
            case [b"known", bytes(outcome)]:
                return Repeated(Outcome(outcome.decode()))
            case [b"reused"]:
                return Reused()
            case [b"moved", bytes(state), bytes(deadline), int(now)]:
                return Moved(State(state.decode()), overdue=now > int(deadline))
            case [b"busy"]:
                return Busy()
            case _:
                return Moved(None, overdue=False)

    async def ensure_groups(self) -> None:
        """Create the streams and groups that are missing, in every partition that answers.

        Raises:
            RedisError: it failed in every partition.

        """
        async with self._making_groups:
            await self._groups.step()

    async def ensure_group(self, partition: int) -> None:
        """Create a partition's stream and group if missing. The group starts at the first entry, so none is dropped.

        Raises:
            RedisError: Redis refuses it or cannot be reached.

        """
        call = _ENSURE_GROUP.call(commands=self._keys.commands(partition), group=GROUP)
        await run_script(self._redis, _ENSURE_GROUP, call)

    async def read(self, reader: Redis, consumer: str, count: int, block_ms: int) -> list[Entry]:
        """Return entries that no consumer has read; wait up to `block_ms` on `reader`, the loop's own connection."""
        streams = [self._keys.commands(partition) for partition in self._keys.partitions]
        reply: dict[bytes, list[_RawEntry]] | None = await reader.execute_command(
            *("XREADGROUP", "GROUP", GROUP, consumer, "COUNT", count, "BLOCK", block_ms),
            *("STREAMS", *streams, *(">" for _ in streams)),
        )
        return [
            _entry(self._partition_of[stream], id_, fields)
            for stream, entries in (reply or {}).items()
            for id_, fields in entries
        ]

    async def claim(
        self, partition: int, consumer: str, min_idle_ms: int, cursor: str, count: int
    ) -> tuple[str, list[Entry], list[str]]:
        """Take over entries that have been pending for `min_idle_ms` (XAUTOCLAIM), from `cursor` on.

        Returns the next cursor, the entries with their delivery counts, and the ids of pending entries that no longer
        exist in the stream: the relay never deletes those, so they were lost.

        If a claim is cancelled or its reply is lost, Redis may still have made it. Then its entries stay pending for
        `consumer`, with one delivery more, and are claimed again once they have been idle for `min_idle_ms`. Nothing is
        lost or doubled: only the decision of an entry removes it from the stream, and a valid entry is decided however
        often it was delivered.
        """
        stream = self._keys.commands(partition)
        reply: tuple[bytes, list[_RawEntry], list[bytes]] = await self._redis.execute_command(
            "XAUTOCLAIM", stream, GROUP, consumer, min_idle_ms, cursor, "COUNT", count
        )
        next_cursor, claimed, lost = reply
        entries = [_entry(partition, id_, fields) for id_, fields in claimed]
        if entries:
            rows = await self._redis.xpending_range(
                stream, GROUP, min=entries[0].id, max=entries[-1].id, count=count, consumername=consumer
            )
            deliveries = {row["message_id"]: int(row["times_delivered"]) for row in rows}
            entries = [entry._replace(deliveries=deliveries.get(entry.id.encode(), 1)) for entry in entries]
        return next_cursor.decode(), entries, [id_.decode() for id_ in lost]

    async def hand_back(self, partition: int, consumer: str) -> None:
        """Let other consumers claim everything that is pending for a consumer at once, without counting a delivery.

        XCLAIM … IDLE … JUSTID. Entries beyond `HANDED_BACK` become claimable by themselves, after the usual idle time.
        """
        stream = self._keys.commands(partition)
        rows = await self._redis.xpending_range(stream, GROUP, "-", "+", HANDED_BACK, consumer)
        if rows:
            await self._redis.execute_command(
                *("XCLAIM", stream, GROUP, consumer, 0, *(row["message_id"] for row in rows)),
                *("IDLE", HANDED_BACK_IDLE, "JUSTID"),
                parse_justid=True,  # otherwise redis-py would parse the ids as whole entries
            )

    async def move_to_dead_letters(self, entry: Entry, reason: str) -> bool:
        """Move an entry to the dead letters and return True; False if the entry is gone."""
        call = _DEAD_LETTER.call(
            commands=self._keys.commands(entry.partition),
            dead_letters=self._keys.dead_letters(entry.partition),
            group=GROUP,
            entry_id=entry.id,
            command=entry.command,
            reason=reason,
            deliveries=entry.deliveries,
            kept=DEAD_LETTERS_KEPT,
        )
        return await run_script(self._redis, _DEAD_LETTER, call) == 1

    async def remove_consumer(self, partition: int, consumer: str, inactive_ms: int = 0) -> bool:
        """Remove a consumer if it has nothing pending and was inactive for `inactive_ms`; return whether it did."""
        call = _REMOVE_CONSUMER.call(
            commands=self._keys.commands(partition), group=GROUP, consumer=consumer, inactive_ms=inactive_ms
        )
        return await run_script(self._redis, _REMOVE_CONSUMER, call) == 1

    async def backlog(self, partition: int) -> Backlog:
        """Return the backlog of a partition, even before a worker has created its group."""
        call = _BACKLOG.call(
            commands=self._keys.commands(partition), dead_letters=self._keys.dead_letters(partition), group=GROUP
        )
        match await run_script(self._redis, _BACKLOG, call):
            case [int(entries), int(pending), bytes(unread), bytes(first_pending), int(dead_letters), int(now)]:
                return Backlog(entries, pending, _age(unread, now), _age(first_pending, now), dead_letters)
            case reply:
                message = f"backlog.lua answered {type(reply).__name__}"
                raise TypeError(message)

    async def consumers(self, partition: int) -> list[tuple[str, int, int]]:
        """Return each consumer's name, its number of pending entries, and the milliseconds since it was last active."""
        rows: list[dict[str, Any]] = await self._redis.execute_command(
            "XINFO CONSUMERS", self._keys.commands(partition), GROUP
        )
        return [(row["name"].decode(), row["pending"], row["idle"]) for row in rows]


def _age(id_: bytes, now: int) -> int | None:
    return max(0, now - int(id_.partition(b"-")[0])) if id_ else None


def _entry(partition: int, id_: bytes, fields: dict[bytes, bytes]) -> Entry:
    return Entry(partition, id_.decode(), fields.get(b"command", b""), session=fields.get(b"session", b""))
