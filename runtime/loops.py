"""Keeps the loops of a process running: if one ended unnoticed, the requests that depend on it would never return."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog
from redis.backoff import ExponentialWithJitterBackoff

_log = structlog.get_logger("api")

_BACKOFF = ExponentialWithJitterBackoff(base=0.05, cap=2.0)
SOUND_FOR = 10.0  # seconds; the backoff starts again after a loop has run for this long


async def keep_running(name: str, run: Callable[[], Awaitable[NoReturn]]) -> NoReturn:
    """Run a loop until cancelled, and restart it after an unexpected exception, which is logged.

    The loop handles the errors that it expects. Until it is restarted, the process goes on answering: every request
    has a time limit of its own.
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
