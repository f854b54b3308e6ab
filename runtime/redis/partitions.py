"""Does something in every partition concurrently, so that a partition that does not answer delays no other.

On a cluster each partition is on one node, and a node may hang or be down while the others serve.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import structlog

from runtime.redis.connections import REDIS_TROUBLE, reason_of

if TYPE_CHECKING:
    from prometheus_client import Counter

PATIENCE = 0.5  # seconds; a healthy partition answers in milliseconds, and must be served within a second

Do = Callable[[int], Awaitable[None]]

_log = structlog.get_logger("redis")


class EachPartition:
    """Does the work of a loop's step in each partition.

    A step waits for a short time only. An attempt that has not ended by then is not cancelled, and later steps skip its
    partition until it has ended. So no reply is lost, each partition has at most one attempt under way, and the work
    gets done even if Redis is slow everywhere.
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
        """Each attempt calls `do`, and `repair` before it if the last attempt in the partition failed.

        `name` is the loop's. `losses` counts failures by loop and reason. `patience` is in seconds.
        """
        self._name = name
        self._do = do
        self._repair = repair
        self._partitions = partitions
        self._losses = losses
        self._patience = patience
        self._under_way: dict[int, asyncio.Task[Exception | None]] = {}
        self._lost: set[int] = set()
        """Partitions whose last attempt failed and whose loss has been logged."""

    async def step(self, only: Iterable[int] | None = None) -> None:
        """Do the work in each partition, or in those of `only`; return when it has ended, or after the patience.

        The loss of a partition is logged once, and so is its return. If every attempt that ended has failed, nothing is
        logged: then the loop itself has failed, and the caller reports it.

        Raises:
            Exception: the first failure, if every attempt that ended has failed.

        """
        partitions = self._partitions if only is None else only
        begun = [self._begin(partition) for partition in partitions if partition not in self._under_way]
        if begun:
            await asyncio.wait(begun, timeout=self._patience)
        tasks = self._under_way.values()
        if len(tasks) == len(self._partitions) and not any(task.done() for task in tasks):
            # No other partition is delayed by waiting, and a step that returned now would look like progress.
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        self._settle()

    async def aclose(self) -> None:
        """Cancel the attempts that are under way, at the end of the loop."""
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
        """Log and count the results of the attempts that have ended."""
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
