"""The worker process: its signals and its exit code. `worker.app` is what runs in it."""

import asyncio
import os
import signal
import sys

import structlog
import uvloop

from runtime.errors import SettingError
from runtime.lifeline import stop_when_stdin_closes
from runtime.logs import configure_logging
from runtime.redis.connections import command_client
from runtime.settings import Settings, load_settings
from runtime.tracing import Tracing
from worker.app import watched, work

_log = structlog.get_logger("worker")


def main(*, until_stdin_closes: bool = False) -> int:
    """Run one worker; returns its exit code: 0 stopped cleanly, 1 the grace was too short, 2 a setting is wrong."""
    try:
        settings = load_settings(os.environ)
        _ = command_client(settings, "login-relay:worker")  # a malformed URL is told before anything is started
        configure_logging(settings)
        if until_stdin_closes:
            stop_when_stdin_closes()
        with watched(settings) as tracing:
            return uvloop.run(_until_stopped(settings, tracing))
    except SettingError as error:
        print(f"login-relay: {error}", file=sys.stderr)  # noqa: T201 - before logging is set up
        return 2


async def _until_stopped(settings: Settings, tracing: Tracing | None) -> int:
    """Work until SIGTERM or SIGINT, and then for the grace at most; returns the exit code."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    working = asyncio.create_task(work(settings, stopping, tracing))
    await asyncio.wait({working, asyncio.create_task(stopping.wait())}, return_when=asyncio.FIRST_COMPLETED)
    done, _ = await asyncio.wait({working}, timeout=settings.shutdown_grace_ms / 1000)
    if not done:
        _log.error("grace is over; entries in hand are left to the other workers")
        return 1
    await working
    return 0


if __name__ == "__main__":
    sys.exit(main())
