"""Keeping the loops of a process going: what they serve would wait for ever if one ended unseen."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog
from redis.backoff import ExponentialWithJitterBackoff

_log = structlog.get_logger("api")

_BACKOFF = ExponentialWithJitterBackoff(base=0.05, cap=2.0)
SOUND_FOR = 10.0  # seconds; a loop that ran for so long has got over its defect


async def keep_running(name: str, run: Callable[[], Awaitable[NoReturn]]) -> NoReturn:
    """Run a loop until cancelled, and begin it again when a defect ends it.

    What it expects to go wrong it handles itself; anything else is logged here. The process goes on meanwhile: its
    requests are bounded by times of their own.
    """
    clock, failures = asyncio.get_running_loop().time, 0
    while True:
        started = clock()
        try:
            await run()
        except Exception:  # noqa: BLE001 - see above
            failures = 1 if clock() - started > SOUND_FOR else failures + 1
            _log.exception("loop failed", loop=name, failures=failures)
            await asyncio.sleep(_BACKOFF.compute(failures))
