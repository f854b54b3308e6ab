"""The worker's composition root: settings in, its loops run until it is told to stop."""

import asyncio
import os
import socket
import uuid
from collections.abc import Awaitable

import structlog
from redis.exceptions import RedisError

from runtime.redis.connections import CONNECTION_LOST, command_client, reader_client
from runtime.redis.keys import Keys
from runtime.settings import Settings
from runtime.tracing import Tracing
from statemachine.store.command_stream import CommandStream
from statemachine.store.sessions import SessionStore
from worker.consumer import Consumer
from worker.handlers import Handlers
from worker.heartbeat import Heartbeat
from worker.loop import repeat
from worker.reclaimer import Reclaimer
from worker.sweeper import Sweeper

CONSUMERS = ("consumer", "consumer 2")
"""Loops that read and decide: while Redis commits what one has decided, the other one decides."""


async def work(settings: Settings, stopping: asyncio.Event, tracing: Tracing | None = None) -> None:
    """Run a worker until `stopping` is set, then finish what is in hand."""
    # Never reused: a name that came back would inherit the pending entries of the process that had it.
    name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
    keys = Keys(settings.prefix, settings.partitions)
    redis = command_client(settings, "login-relay:worker")
    stream = CommandStream(redis, keys)
    store = SessionStore(redis, keys, settings)
    spans = None
    if tracing is not None:
        from worker.spans import BatchSpans  # noqa: PLC0415 - imports OpenTelemetry

        spans = BatchSpans(tracing)
    handlers = Handlers(store, settings.pickup_window_ms, spans)
    readers = [reader_client(settings, "login-relay:worker-reader") for _ in CONSUMERS]
    consumers = [Consumer(stream, handlers, reader, name, settings.block_ms) for reader in readers]
    reclaimer = Reclaimer(
        stream,
        handlers,
        name,
        keys.partitions,
        min_idle_ms=settings.min_idle_ms,
        max_deliveries=settings.max_deliveries,
    )
    sweeper = Sweeper(store, keys.partitions, settings.pickup_window_ms)
    stale_after = 3 * max(settings.block_ms, settings.reclaim_period_ms, settings.sweep_period_ms) / 1000
    heartbeat = Heartbeat(redis, keys, name, (*CONSUMERS, "reclaimer", "sweeper"), stale_after)
    try:
        await _ensure_groups(stream, stopping)
        _log.info("worker started", consumer=name, partitions=len(keys.partitions))
        async with asyncio.TaskGroup() as group:
            for loop, consumer in zip(CONSUMERS, consumers, strict=True):
                group.create_task(
                    repeat(
                        loop,
                        consumer.step,
                        period=0,
                        stopping=stopping,
                        heartbeat=heartbeat,
                        repair=consumer.repair,
                    )
                )
            group.create_task(
                repeat(
                    "reclaimer",
                    reclaimer.step,
                    period=settings.reclaim_period_ms / 1000,
                    stopping=stopping,
                    heartbeat=heartbeat,
                    repair=reclaimer.repair,
                )
            )
            group.create_task(
                repeat(
                    "sweeper",
                    sweeper.step,
                    period=settings.sweep_period_ms / 1000,
                    stopping=stopping,
                    heartbeat=heartbeat,
                )
            )
            group.create_task(heartbeat.run(stopping))
            await stopping.wait()
            for consumer in consumers:
                await _orderly(consumer.unblock(redis))
        await _orderly(heartbeat.resign())
        for partition in keys.partitions:
            await _orderly(stream.hand_back(partition, name))
            await _orderly(stream.remove_consumer(partition, name))
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
        except (*CONNECTION_LOST, RedisError) as error:
            _log.warning("waiting for redis", error=type(error).__name__)
            await asyncio.sleep(1.0)
        else:
            return


async def _orderly(last_word: Awaitable[object]) -> None:
    """Await a courtesy to the other workers; without Redis it is left out, and they find out by themselves."""
    try:
        await last_word
    except (*CONNECTION_LOST, RedisError) as error:
        _log.warning("stopped without redis", error=type(error).__name__)


_log = structlog.get_logger("worker")
