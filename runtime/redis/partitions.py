"""Doing something in every partition, side by side, so that a partition that does not answer holds up no other.

On a cluster each partition is on one node, and a node may stand still or be gone while the others serve.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import structlog

from runtime.redis.connections import REDIS_TROUBLE, reason_of

if TYPE_CHECKING:
    from prometheus_client import Counter

PATIENCE = 0.5  # seconds; a sound partition answers in milliseconds, and the others are to be served within a second

Do = Callable[[int], Awaitable[None]]

_log = structlog.get_logger("redis")


class EachPartition:
    """What a loop does in each partition when it takes a step.

    A step waits a short time only. It does not cancel what has not ended by then: the attempt goes on, and later steps
    leave its partition out until it has ended. So no reply is thrown away, at most one attempt a partition is under
    way, and a Redis that is slow everywhere still gets its work done.
    """

    def __init__(
        self,
        name: str,
        do: Do,
        partitions: range,
        *,
        repair: Do | None = None,
        losses: "Counter | None" = None,
        patience: float = PATIENCE,
    ) -> None:
        """Prepare `do` for each partition, with `repair` before it where the last try failed.

        `name` is the loop's. `losses` counts by it and by the reason. `patience` is in seconds.
        """
        self._name = name
        self._do = do
        self._repair = repair
        self._partitions = partitions
        self._losses = losses
        self._patience = patience
        self._under_way: dict[int, asyncio.Task[Exception | None]] = {}
        self._lost: set[int] = set()
        """Partitions whose last try failed and whose loss has been logged."""

    async def step(self, only: Iterable[int] | None = None) -> None:
        """Do it in each partition, or `only` in some; returns when that has ended, or after the patience.

        The loss of a partition is logged here, once, and so is its return. If everything that ended has failed, nothing
        is logged: that is the loop's own failure, and the caller's to report.

        Raises:
            Exception: the first failure, if everything that ended has failed.

        """
        partitions = self._partitions if only is None else only
        begun = [self._begin(partition) for partition in partitions if partition not in self._under_way]
        if begun:
            await asyncio.wait(begun, timeout=self._patience)
        tasks = self._under_way.values()
        if len(tasks) == len(self._partitions) and not any(task.done() for task in tasks):
            # There is no other partition to hold up, and a step that returned now would look like progress.
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        self._settle()

    async def aclose(self) -> None:
        """Cancel what is under way, at the end of the loop."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._under_way.clear()

    def _begin(self, partition: int) -> "asyncio.Task[Exception | None]":
        task = self._under_way[partition] = asyncio.create_task(self._attempt(partition))
        return task

    async def _attempt(self, partition: int) -> Exception | None:
        try:
            if self._repair is not None and partition in self._lost:
                await self._repair(partition)
            await self._do(partition)
        except Exception as error:  # noqa: BLE001 - even a defect must not stop the other partitions
            return error
        return None

    def _settle(self) -> None:
        """Take note of what has ended."""
        ended = {partition: task for partition, task in self._under_way.items() if task.done()}
        failures: dict[int, Exception] = {}
        for partition, task in ended.items():
            del self._under_way[partition]
            if (error := task.result()) is not None:
                failures[partition] = error
        if failures and len(failures) == len(ended):
            raise next(iter(failures.values()))
        self._tell_lost({partition: error for partition, error in failures.items() if partition not in self._lost})
        self._tell_back(self._lost & (ended.keys() - failures.keys()))

    def _tell_lost(self, failures: dict[int, Exception]) -> None:
        self._lost |= failures.keys()
        lost: list[int] = []
        reasons: set[str] = set()
        for partition, error in failures.items():
            if isinstance(error, REDIS_TROUBLE):
                lost.append(partition)
                reasons.add(reason_of(error))
            else:
                _log.error("partition failed", loop=self._name, partition=partition, exc_info=error)
        if lost:
            _log.warning("partitions lost", loop=self._name, partitions=lost, reasons=sorted(reasons))
        if self._losses is not None:
            for reason in reasons:
                self._losses.labels(self._name, reason).inc()

    def _tell_back(self, partitions: set[int]) -> None:
        self._lost -= partitions
        if partitions:
            _log.info("partitions back", loop=self._name, partitions=sorted(partitions))
