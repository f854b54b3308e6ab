"""`login-relay status`: the backlog of each partition, and the workers."""

import click
import msgspec

from login_relay.operate.relay import Relay, json_option, on_relay
from login_relay.operate.tables import age, table
from statemachine.store.command_stream import CommandStream
from statemachine.store.workers import WorkerStatus, read_workers


class PartitionStatus(msgspec.Struct, frozen=True):
    """A partition, as `--json` prints it. Ages are milliseconds since the entry was recorded."""

    partition: int
    backlog: int
    """Commands not decided yet."""
    pending: int
    """Undecided commands that a worker has read."""
    oldest_unread_ms: int | None
    oldest_pending_ms: int | None
    dead_letters: int


class Status(msgspec.Struct, frozen=True):
    """What `--json` prints. Fields are only ever added."""

    partitions: list[PartitionStatus]
    workers: list[WorkerStatus]


async def read_partitions(relay: Relay) -> list[PartitionStatus]:
    """Return the status of each partition."""
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


@click.command()
@json_option
@on_relay
async def status(relay: Relay, *, as_json: bool) -> None:
    """Show the partitions with their backlog, and the workers."""
    found = Status(await read_partitions(relay), await read_workers(relay.redis, relay.keys))
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
