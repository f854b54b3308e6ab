"""`login-relay api`: the API on granian, in this process."""

import math
import os
from collections.abc import Callable
from typing import Any

import click
import msgspec
import structlog
from granian import Granian

from api.admin_tokens import AdminTokens
from api.draining import DRAIN_SIGNAL
from login_relay.api_metrics import metrics_of_processes
from login_relay.embedded import resolve_redis_url
from login_relay.http_server import HTTP_SERVER, allow_open_files, http1_settings
from login_relay.lifeline import stop_when_parent_ends, stop_when_stdin_closes
from login_relay.listening import base_url, check_listen_address, host_option, port_option
from statemachine.connections import command_client
from statemachine.logs import configure_logging
from statemachine.settings import load_settings, variable
from statemachine.tracing import check_tracing, start_tracing


class _Server(Granian):  # type: ignore[misc, valid-type] # granian chooses the class when it is imported
    """A granian that has its processes answer what they hold before it stops them."""

    def shutdown(self, exit_code: int = 0) -> None:
        """Stop all processes: after SIGTERM or SIGINT, or because one of them ended by itself."""
        for process in self.wrks:
            if process.is_alive():
                # One that does not take the signal yet ends by it, at once; SIGTERM would be lost on it.
                os.kill(process.inner.pid, DRAIN_SIGNAL)
        super().shutdown(exit_code)

    def signal_handler_reload(self, *_: object, **__: object) -> None:
        """Ignore SIGHUP: there is nothing to load anew, and granian would cut off what its old processes hold."""


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

    server = _Server(
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
