"""The shape that all loops of a worker share: do a step, wait, and outlive Redis being away."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog
from redis.backoff import ExponentialWithJitterBackoff

from runtime.metrics_server import RECONNECTS
from runtime.redis.connections import REDIS_TROUBLE, error_code, reason_of
from worker.heartbeat import Heartbeat

_log = structlog.get_logger("worker")

_BACKOFF = ExponentialWithJitterBackoff(base=0.05, cap=2.0)
# Jittered, because NOGROUP and a refused connection return at once and would otherwise make a hot loop.


class Loop(NamedTuple):
    """What one loop of a worker does again and again."""

    name: str
    """As in metrics, logs and signs of life."""
    step: Callable[[], Awaitable[None]]
    period: float
    """Seconds between two steps; 0: the next begins at once."""
    repair: Callable[[], Awaitable[None]] | None = None
    """Done before the step that follows a failed one; may fail too."""


async def repeat(loop: Loop, stopping: asyncio.Event, heartbeat: Heartbeat) -> None:
    """Do the steps of a loop until `stopping` is set.

    A step that fails is logged once per series of failures and followed by a back-off. Only a step that returned counts
    as progress.
    """
    name, step, period, repair = loop
    RECONNECTS.labels(name, "ConnectionError")  # present from the start, so that the first is seen as an increase
    failures = 0
    while not stopping.is_set():
        try:
            if failures and repair is not None:
                await repair()
            await step()
        except REDIS_TROUBLE as error:
            failures += 1
            if failures == 1:
                _log.warning("loop interrupted", loop=name, error=type(error).__name__, reason=error_code(error))
                RECONNECTS.labels(name, reason_of(error)).inc()
            await _sleep(_BACKOFF.compute(failures), stopping)
            continue
        except Exception:  # noqa: BLE001 - a defect is logged and shows as a stuck loop; the other loops go on
            failures += 1
            _log.exception("loop failed", loop=name)
            await _sleep(_BACKOFF.compute(failures), stopping)
            continue
        if failures:
            _log.info("loop resumed", loop=name, failures=failures)
            failures = 0
        heartbeat.beat(name)
        if period:
            await _sleep(period, stopping)


async def _sleep(seconds: float, stopping: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return
