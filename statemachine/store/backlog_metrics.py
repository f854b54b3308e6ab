"""The backlog as metrics, read from Redis at each scrape."""

import asyncio
from collections.abc import Callable, Iterator
from threading import Lock

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis.asyncio import Redis

from runtime.redis.connections import REDIS_TROUBLE
from runtime.redis.keys import Keys
from statemachine.store.command_stream import Backlog, CommandStream

GAUGES = {
    "login_relay_backlog_entries": "Commands that no worker has decided yet.",
    "login_relay_pending_entries": "Those of them that a worker has read (XPENDING).",
    "login_relay_oldest_unread_seconds": "Age of the oldest command that no worker has read; 0 if there is none.",
    "login_relay_oldest_pending_seconds": "Age of the oldest command that was read only; 0 if there is none.",
    "login_relay_dead_letter_entries": "Dead letters that are kept.",
}
REDIS_UP = "login_relay_redis_up"


class Standing(Collector):
    """Collects the backlog of each partition from Redis at each scrape.

    Every process reports it, so that it is known even if no worker runs: take the maximum over processes.
    """

    def __init__(self, connect: Callable[[], Redis], keys: Keys) -> None:
        self._connect = connect
        self._keys = keys
        self._one_at_a_time = Lock()  # otherwise frequent scrapes would open many connections

    def collect(self) -> Iterator[Metric]:
        """Yield a gauge for each figure; without Redis, only the one that says so."""
        try:
            with self._one_at_a_time:
                # On a connection and an event loop of its own, so that a process that is stuck can still be observed.
                backlogs = asyncio.run(self._read())
        except REDIS_TROUBLE:
            yield GaugeMetricFamily(REDIS_UP, "Whether this process reached Redis just now.", 0)
            return
        yield GaugeMetricFamily(REDIS_UP, "Whether this process reached Redis just now.", 1)
        for (name, text), values in zip(GAUGES.items(), zip(*map(_values, backlogs), strict=True), strict=True):
            gauge = GaugeMetricFamily(name, text, labels=["partition"])
            for partition, value in enumerate(values):
                gauge.add_metric([str(partition)], value)
            yield gauge

    async def _read(self) -> list[Backlog]:
        async with self._connect() as redis:
            stream = CommandStream(redis, self._keys)
            return [await stream.backlog(partition) for partition in self._keys.partitions]


def _values(backlog: Backlog) -> tuple[float, ...]:
    return (
        backlog.entries,
        backlog.pending,
        (backlog.oldest_unread_ms or 0) / 1000,
        (backlog.oldest_pending_ms or 0) / 1000,
        backlog.dead_letters,
    )
