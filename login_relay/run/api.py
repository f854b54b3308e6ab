"""`login-relay api`: the API processes."""

import os
import sys

import click

from api.__main__ import main
from login_relay.run.embedded import resolve_redis_url
from login_relay.run.keys_file import kept_keys_file
from login_relay.run.options import host_option, port_option
from runtime.settings import load_settings, variable


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

    Run as many as needed on one Redis. On SIGTERM or Ctrl-C it answers its requests and stops, after
    LOGIN_RELAY_SHUTDOWN_GRACE_MS at the latest.
    """
    settings = load_settings(os.environ)
    given = {
        "redis_url": resolve_redis_url(settings),
        "keys_file": kept_keys_file(settings),
        "host": host,
        "port": port,
    }
    os.environ.update({variable(field): str(value) for field, value in given.items() if value is not None})
    sys.exit(main(workers, until_stdin_closes=until_stdin_closes))
