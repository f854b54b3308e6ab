"""Starts granian and its API processes on the address that the settings name. `python -m api` starts one process."""

import math
import os
import sys
from collections.abc import Callable
from typing import Any

import structlog

from api.server.granian_server import Server
from api.server.http1 import HTTP_SERVER, allow_open_files, http1_settings
from api.server.listening import base_url, check_listen_address
from api.server.processes_metrics import metrics_of_processes
from api.stack.admin_tokens import AdminTokens
from runtime.errors import SettingError
from runtime.lifeline import stop_when_parent_ends, stop_when_stdin_closes
from runtime.logs import configure_logging
from runtime.master_secrets import MasterSecretsFile
from runtime.redis.connections import command_client
from runtime.settings import Settings, load_settings
from runtime.tracing import check_tracing, start_tracing


def main(processes: int = 1, *, until_stdin_closes: bool = False) -> int:
    """Serve HTTP until SIGTERM or SIGINT; return the exit code: 0 stopped cleanly, 2 a setting is wrong."""
    try:
        _serve(load_settings(os.environ), processes, until_stdin_closes=until_stdin_closes)
    except SettingError as error:
        print(f"login-relay: {error}", file=sys.stderr)  # noqa: T201 - before logging is set up
        return 2
    return 0


def _serve(settings: Settings, processes: int, *, until_stdin_closes: bool) -> None:
    check(settings)
    allow_open_files()
    server = Server(
        "api.app:create_app",
        address=settings.host,
        port=settings.port,
        workers=processes,
        workers_kill_timeout=math.ceil(settings.shutdown_grace_ms / 1000),
        http1_settings=http1_settings(settings.request_timeout_ms),
        **HTTP_SERVER,
    )
    if until_stdin_closes:
        server.on_startup(stop_when_stdin_closes)
    configure_logging(settings)
    structlog.get_logger("api").info("listening", url=base_url(settings.host, settings.port), processes=processes)
    with metrics_of_processes(settings) as metrics:
        if metrics is not None:
            server.on_startup(metrics.start)
        # A function, not a name: granian would look a name up in the current folder first, where another `api` may be.
        server.serve(target_loader=_application, wrap_loader=False)


def check(settings: Settings) -> None:
    """Raise the errors that would stop an API process, before one is started.

    Raises:
        SettingError: a setting is unusable, or the address cannot be listened on.

    """
    _ = command_client(settings, "login-relay:api")  # raises for a malformed URL
    AdminTokens.from_settings(settings)  # raises for an unusable key file
    MasterSecretsFile.from_settings(settings)  # the same
    check_tracing(os.environ)
    check_listen_address(settings.host, settings.port)


def _application() -> Callable[..., Any]:
    from api.app import create_app  # noqa: PLC0415 - after the folder of the metrics was created

    stop_when_parent_ends()
    return create_app(tracing=start_tracing(os.environ, "login-relay-api"))


if __name__ == "__main__":
    sys.exit(main())
