"""`login-relay api`: the API on granian, in this process."""

import math
import os
from collections.abc import Callable
from typing import Any

import click
import msgspec
import structlog

from api.server.granian_server import Server
from api.server.http1 import HTTP_SERVER, allow_open_files, http1_settings
from api.server.processes_metrics import metrics_of_processes
from api.stack.admin_tokens import AdminTokens
from login_relay.run.embedded import resolve_redis_url
from login_relay.run.listening import (
    base_url,
    check_listen_address,
    host_option,
    port_option,
)
from runtime.lifeline import stop_when_parent_ends, stop_when_stdin_closes
from runtime.logs import configure_logging
from runtime.redis.connections import command_client
from runtime.settings import load_settings, variable
from runtime.tracing import check_tracing, start_tracing


@click.command()
@host_option
@port_option
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    metavar="N",
    default=1,
    show_default=True,
    help="Processes that serve HTTP.",
)
@click.option("--until-stdin-closes", is_flag=True, hidden=True)
def api(host: str | None, port: int | None, workers: int, *, until_stdin_closes: bool) -> None:
    """Serve the HTTP API.

    Run as many as needed on one Redis. SIGTERM or Ctrl-C stops it when its requests are answered, or after
    LOGIN_RELAY_SHUTDOWN_GRACE_MS.
    """
    settings = load_settings(os.environ)
    settings = msgspec.structs.replace(
        settings,
        redis_url=resolve_redis_url(settings),
        host=host or settings.host,
        port=port or settings.port,
    )
    _ = command_client(settings, "login-relay:api")  # a malformed URL is told before anything is started
    AdminTokens.from_settings(settings)  # an unusable key file too
    check_tracing(os.environ)  # and what traces need
    check_listen_address(settings.host, settings.port)
    os.environ[variable("redis_url")] = settings.redis_url or ""
    allow_open_files()

    server = Server(
        "api.app:create_app",
        address=settings.host,
        port=settings.port,
        workers=workers,
        workers_kill_timeout=math.ceil(settings.shutdown_grace_ms / 1000),
        http1_settings=http1_settings(settings.request_timeout_ms),
        **HTTP_SERVER,
    )
    if until_stdin_closes:
        server.on_startup(stop_when_stdin_closes)
    configure_logging(settings)
    structlog.get_logger("api").info("listening", url=base_url(settings.host, settings.port), processes=workers)
    with metrics_of_processes(settings) as metrics:
        if metrics is not None:
            server.on_startup(metrics.start)
        # Given a function: granian's own look-up by name would prefer an `api` in the folder it was started in.
        server.serve(target_loader=_application, wrap_loader=False)


def _application() -> Callable[..., Any]:
    from api.app import create_app  # noqa: PLC0415 - after the metrics' folder was made

    stop_when_parent_ends()
    return create_app(tracing=start_tracing(os.environ, "login-relay-api"))
