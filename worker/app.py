"""The worker's composition root: settings in, its loops run until it is told to stop."""

import asyncio
import contextlib
import os
import socket
import uuid
from collections.abc import Awaitable, Iterator
from functools import partial

import structlog
from prometheus_client import REGISTRY

from runtime.metrics_server import listen
from runtime.redis.connections import COMMAND_TIMEOUT, REDIS_TROUBLE, command_client, reader_client
from runtime.redis.keys import Keys
from runtime.redis.partitions import EachPartition
from runtime.settings import Settings
from runtime.tracing import Tracing, start_tracing
from statemachine.store.backlog_metrics import Standing
from statemachine.store.command_stream import CommandStream
from statemachine.store.committing import Committing
from statemachine.store.reading import Sessions
from statemachine.store.retention import Retention
from tokens.store.committing import FamilyCommitting
from tokens.store.reading import Families
from worker.consumer import Consumer
from worker.families import FamilyHandlers
from worker.handlers import Handlers
from worker.heartbeat import Heartbeat
from worker.loop import Loop, repeat
from worker.reclaimer import Reclaimer
from worker.sweeper import Sweeper

CONSUMERS = ("consumer", "consumer 2", "consumer 3")
"""Loops that read and decide: while Redis commits what one has decided, another one decides. With two, Redis has
nothing to do for half of the time: the read of one waits for the commits of the other."""

_log = structlog.get_logger("worker")


@contextlib.contextmanager
def watched(settings: Settings) -> Iterator[Tracing | None]:
    """Serve the process' metrics as long as the context lasts, and give what makes its spans; None without traces.

    Raises:
        SettingError: the metrics have no address, or the traces cannot be exported.

    """
    connect = partial(command_client, settings, "login-relay:metrics")
    REGISTRY.register(Standing(connect, Keys(settings.prefix, settings.partitions)))
    if (metrics := listen(settings, REGISTRY)) is not None:
        metrics.start()
    tracing = start_tracing(os.environ, "login-relay-worker")
    try:
        yield tracing
    finally:
        if tracing is not None:
            tracing.close()


async def work(settings: Settings, stopping: asyncio.Event, tracing: Tracing | None = None) -> None:
    """Run a worker until `stopping` is set, then finish what is in hand."""
    # Never reused: a name that came back would inherit the pending entries of the process that had it.
    name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
    keys = Keys(settings.prefix, settings.partitions)
    redis = command_client(settings, "login-relay:worker")
    readers = [reader_client(settings, "login-relay:worker-reader") for _ in CONSUMERS]
    stream = CommandStream(redis, keys)
    sessions = Sessions(redis, keys)
    retention = Retention(settings.retention_ms, settings.abandoned_retention_ms, settings.events_max)
    committing = Committing(redis, keys, retention, replay_window_ms=settings.replay_window_ms)
    spans = None
    if tracing is not None:
        from worker.spans import BatchSpans  # noqa: PLC0415 - imports OpenTelemetry

        spans = BatchSpans(tracing)
    token_retention = retention.of_tokens(settings.replay_window_ms, settings.partitions)
    families = FamilyHandlers(Families(redis, keys), FamilyCommitting(redis, keys, token_retention), spans)
    handlers = Handlers(sessions, committing, families, settings.pickup_window_ms, spans)
    consumers = [Consumer(stream, handlers, reader, name, settings.block_ms) for reader in readers]
    reclaimer = Reclaimer(
        stream,
        handlers,
        name,
        keys.partitions,
        min_idle_ms=settings.min_idle_ms,
        max_deliveries=settings.max_deliveries,
    )
    sweeper = Sweeper(sessions, committing, keys.partitions, settings.pickup_window_ms)
    named = zip(CONSUMERS, consumers, strict=True)
    loops = [
        *(Loop(label, consumer.step, 0, stream.ensure_groups) for label, consumer in named),
        Loop("reclaimer", reclaimer.step, settings.reclaim_period_ms / 1000, stream.ensure_groups),
        Loop("sweeper", sweeper.step, settings.sweep_period_ms / 1000),
    ]

    async def leave(partition: int) -> None:
        await stream.hand_back(partition, name)
        await stream.remove_consumer(partition, name)

    leaving = EachPartition("stop", leave, keys.partitions, patience=COMMAND_TIMEOUT)
    stale_after = 3 * max(settings.block_ms, settings.reclaim_period_ms, settings.sweep_period_ms) / 1000
    heartbeat = Heartbeat(redis, keys, name, [loop.name for loop in loops], stale_after)
    try:
        await _ensure_groups(stream, stopping)
        _log.info("worker started", consumer=name, partitions=len(keys.partitions))
        async with contextlib.aclosing(reclaimer), contextlib.aclosing(sweeper), asyncio.TaskGroup() as group:
            for loop in loops:
                group.create_task(repeat(loop, stopping, heartbeat))
            group.create_task(heartbeat.run(stopping))
            await stopping.wait()
            for consumer in consumers:
                await _orderly(consumer.unblock(redis))
        await _orderly(heartbeat.resign())
        async with contextlib.aclosing(leaving):
            await _orderly(leaving.step())
        _log.info("worker stopped", consumer=name)
    finally:
        for reader in readers:
            await reader.aclose()
        await redis.aclose()


async def _ensure_groups(stream: CommandStream, stopping: asyncio.Event) -> None:
    """Wait for a Redis that is still starting."""
    while not stopping.is_set():
        try:
            await stream.ensure_groups()
        except REDIS_TROUBLE as error:
            _log.warning("waiting for redis", error=type(error).__name__)
            await asyncio.sleep(1.0)
        else:
            return


async def _orderly(last_word: Awaitable[object]) -> None:
    """Await a courtesy to the other workers; without Redis it is left out, and they find out by themselves."""
    try:
        await last_word
    except REDIS_TROUBLE as error:
        _log.warning("stopped without redis", error=type(error).__name__)
