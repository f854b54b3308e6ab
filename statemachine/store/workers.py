"""Heartbeats: each worker process leaves a sign of life in Redis while all of its loops make progress.

A sign expires by itself, so a worker that is stuck or dead is noticed without a message from it.
"""

import time

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from runtime.redis.keys import Keys
from runtime.redis.scripts import Script, run_script
from statemachine.store.command_stream import CommandStream

_SIGN = Script.named("statemachine.store", "sign")

LIFE_MS = 5_000  # a sign is valid for five periods of the heartbeat


class SignOfLife(msgspec.Struct, frozen=True):
    """What a worker reports about itself."""

    host: str
    pid: int
    started_at: float
    """Seconds since the epoch, by the worker's own clock."""


async def leave_sign(redis: Redis, keys: Keys, consumer: str, sign: SignOfLife) -> None:
    """Leave a worker's sign of life for `LIFE_MS`. One round trip."""
    call = _SIGN.call(worker=keys.worker(consumer), sign=msgspec.json.encode(sign), life_ms=LIFE_MS)
    await run_script(redis, _SIGN, call)


class WorkerStatus(msgspec.Struct, frozen=True):
    """A worker seen in the consumer group."""

    consumer: str
    alive: bool
    """Whether it has a valid sign of life: all of its loops make progress."""
    pending: int
    idle_ms: int
    """The time since it last asked for entries."""
    host: str | None
    pid: int | None
    up_ms: int | None
    """The time since its start, by this machine's clock."""


async def read_workers(redis: Redis, keys: Keys) -> list[WorkerStatus]:
    """Return the workers in the consumer group, those that are alive first."""
    stream = CommandStream(redis, keys)
    pending: dict[str, int] = {}
    idle: dict[str, int] = {}
    for partition in keys.partitions:
        try:
            consumers = await stream.consumers(partition)
        except ResponseError:  # no stream or no group: no worker has started yet
            continue
        for name, entries, idle_ms in consumers:
            pending[name] = pending.get(name, 0) + entries
            idle[name] = min(idle.get(name, idle_ms), idle_ms)
    if not pending:
        return []
    signs: list[bytes | None] = [await redis.execute_command("GET", keys.worker(name)) for name in pending]
    workers = [_worker(name, pending[name], idle[name], sign) for name, sign in zip(pending, signs, strict=True)]
    return sorted(workers, key=lambda worker: (not worker.alive, worker.consumer))


def _worker(consumer: str, pending: int, idle_ms: int, sign: bytes | None) -> WorkerStatus:
    if sign is None:
        return WorkerStatus(consumer, sign is not None, pending, idle_ms, None, None, None)
    life = msgspec.json.decode(sign, type=SignOfLife)
    up_ms = max(0, round((time.time() - life.started_at) * 1000))
    return WorkerStatus(consumer, sign is not None, pending, idle_ms, life.host, life.pid, up_ms)
