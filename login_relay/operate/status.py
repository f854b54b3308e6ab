"""`login-relay status`: how the commands stand, partition by partition, and who works on them."""

import time

import click
import msgspec
from redis.exceptions import ResponseError

from login_relay.operate.relay import Relay, json_option, on_relay
from login_relay.operate.tables import age, table
from statemachine.store.command_stream import CommandStream
from statemachine.store.workers import SignOfLife


class PartitionStatus(msgspec.Struct, frozen=True):
    """A partition, as `--json` prints it. Ages are milliseconds since the entry was recorded."""

    partition: int
    backlog: int
    """Commands not decided yet."""
    pending: int
    """Those of them that a worker has read."""
    oldest_unread_ms: int | None
    oldest_pending_ms: int | None
    dead_letters: int


class WorkerStatus(msgspec.Struct, frozen=True):
    """A worker seen in the consumer group."""

    consumer: str
    alive: bool
    """Whether its sign of life is fresh: all of its loops make progress."""
    pending: int
    idle_ms: int
    """Since it last asked for entries."""
    host: str | None
    pid: int | None
    up_ms: int | None
    """Since its start, by this machine's clock."""


class Status(msgspec.Struct, frozen=True):
    """What `--json` prints. Fields are only ever added."""

    partitions: list[PartitionStatus]
    workers: list[WorkerStatus]


async def read_partitions(relay: Relay) -> list[PartitionStatus]:
    """Return how the commands stand, partition by partition."""
    stream = CommandStream(relay.redis, relay.keys)
    found = []
    for partition in relay.keys.partitions:
        backlog = await stream.backlog(partition)
        found.append(
            PartitionStatus(
                partition,
                backlog.entries,
                backlog.pending,
                backlog.oldest_unread_ms,
                backlog.oldest_pending_ms,
                backlog.dead_letters,
            )
        )
    return found


async def read_workers(relay: Relay) -> list[WorkerStatus]:
    """Return the workers that the group knows, the living ones first."""
    stream = CommandStream(relay.redis, relay.keys)
    pending: dict[str, int] = {}
    idle: dict[str, int] = {}
    for partition in relay.keys.partitions:
        try:
            consumers = await stream.consumers(partition)
        except ResponseError:  # no stream or no group: no worker has been here yet
            continue
        for name, entries, idle_ms in consumers:
            pending[name] = pending.get(name, 0) + entries
            idle[name] = min(idle.get(name, idle_ms), idle_ms)
    if not pending:
        return []
    signs: list[bytes | None] = [await relay.redis.execute_command("GET", relay.keys.worker(name)) for name in pending]
    workers = [_worker(name, pending[name], idle[name], sign) for name, sign in zip(pending, signs, strict=True)]
    return sorted(workers, key=lambda worker: (not worker.alive, worker.consumer))


def _worker(consumer: str, pending: int, idle_ms: int, sign: bytes | None) -> WorkerStatus:
    if sign is None:
        return WorkerStatus(consumer, sign is not None, pending, idle_ms, None, None, None)
    life = msgspec.json.decode(sign, type=SignOfLife)
    up_ms = max(0, round((time.time() - life.started_at) * 1000))
    return WorkerStatus(consumer, sign is not None, pending, idle_ms, life.host, life.pid, up_ms)


@click.command()
@json_option
@on_relay
async def status(relay: Relay, *, as_json: bool) -> None:
    """Show the partitions with their backlog, and the workers."""
    found = Status(await read_partitions(relay), await read_workers(relay))
    click.echo(msgspec.json.encode(found) if as_json else _text(found))


def _text(found: Status) -> str:
    partitions = table(
        ("partition", "backlog", "pending", "oldest unread", "oldest pending", "dead letters"),
        [
            (
                row.partition,
                row.backlog,
                row.pending,
                age(row.oldest_unread_ms),
                age(row.oldest_pending_ms),
                row.dead_letters,
            )
            for row in found.partitions
        ],
    )
    if not found.workers:
        return f"{partitions}\n\nNo worker has been seen."
    workers = table(
        ("worker", "alive", "pending", "last read", "up"),
        [
            (row.consumer, "yes" if row.alive else "no", row.pending, age(row.idle_ms), age(row.up_ms))
            for row in found.workers
        ],
    )
    return f"{partitions}\n\n{workers}"
