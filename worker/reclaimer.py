"""The loop that takes over entries whose worker died, and moves those that nobody can decide to the dead letters."""

import time

import structlog

from runtime.metrics_server import RECONNECTS
from runtime.redis.partitions import EachPartition
from statemachine.store.command_stream import CommandStream, Entry
from worker import metrics
from worker.handlers import Handlers

COUNT = 100  # entries a claim; XAUTOCLAIM scans ten times as many pending ones at most
FORGET_AFTER_MS = 600_000  # a consumer inactive for ten minutes with nothing pending is of a process that is gone
FORGET_PERIOD = 60.0  # seconds between two looks for such consumers

_log = structlog.get_logger("worker")


class Reclaimer:
    """Claims idle entries (XAUTOCLAIM) and has them decided like new ones."""

    def __init__(
        self,
        stream: CommandStream,
        handlers: Handlers,
        name: str,
        partitions: range,
        *,
        min_idle_ms: int,
        max_deliveries: int,
        forget_after_ms: int = FORGET_AFTER_MS,
        forget_period: float = FORGET_PERIOD,
    ) -> None:
        self._stream = stream
        self._handlers = handlers
        self._name = name
        self._min_idle_ms = min_idle_ms
        self._max_deliveries = max_deliveries
        self._forget_after_ms = forget_after_ms
        self._forget_period = forget_period
        # The cursor is kept from step to step: from the start each time, entries behind many fresh ones would starve.
        self._cursors = dict.fromkeys(partitions, "0-0")
        self._forgot_at = dict.fromkeys(partitions, time.monotonic())
        self._partitions = EachPartition(
            "reclaimer", self._look_through, partitions, repair=stream.ensure_group, losses=RECONNECTS
        )

    async def step(self) -> None:
        """Look once through what is pending in each partition."""
        await self._partitions.step()

    async def aclose(self) -> None:
        """Cancel what is under way; entries in hand stay pending."""
        await self._partitions.aclose()

    async def _look_through(self, partition: int) -> None:
        cursor, entries, lost = await self._stream.claim(
            partition, self._name, self._min_idle_ms, self._cursors[partition], COUNT
        )
        self._cursors[partition] = cursor
        if lost:
            _log.error("pending entries vanished from the stream", partition=partition, entries=lost)
        if entries:
            await self._decide(entries)
        if time.monotonic() - self._forgot_at[partition] > self._forget_period:
            self._forgot_at[partition] = time.monotonic()
            await self._forget_consumers(partition)

    async def _decide(self, entries: list[Entry]) -> None:
        _log.info("entries taken over", count=len(entries), first=entries[0].id)
        metrics.REDELIVERIES.inc(len(entries))
        for failure in await self._handlers.handle(entries):
            # Redis being unwell is no fault of the entry's: however often it was delivered, it is tried again.
            if failure.is_poison and failure.entry.deliveries >= self._max_deliveries:
                if await self._stream.move_to_dead_letters(failure.entry, failure.reason):
                    metrics.DEAD_LETTERS.inc()
                _log.error("entry moved to the dead letters", entry=failure.entry.id, reason=failure.reason)

    async def _forget_consumers(self, partition: int) -> None:
        for name, pending, idle_ms in await self._stream.consumers(partition):
            if not pending and idle_ms > self._forget_after_ms and name != self._name:
                await self._stream.remove_consumer(partition, name, self._forget_after_ms)
