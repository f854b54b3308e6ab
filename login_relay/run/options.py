"""The options that `serve` and `api` share."""

import click

from runtime.settings import variable

host_option = click.option(
    "--host", metavar="ADDRESS", help=f"Listen on this address.  [default: {variable('host')}, 127.0.0.1]"
)
port_option = click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    metavar="PORT",
    help=f"Listen on this port.  [default: {variable('port')}, 8000]",
)
