"""`login-relay worker`: one worker process."""

import os
import sys

import click

from login_relay.run.embedded import resolve_redis_url
from runtime.settings import load_settings, variable
from worker.__main__ import main


@click.command()
@click.option("--until-stdin-closes", is_flag=True, hidden=True)
def worker(*, until_stdin_closes: bool) -> None:
    """Decide the commands that the API records.

    Run as many as needed on one Redis; each takes its share. On SIGTERM or Ctrl-C it finishes its current entries and
    stops, after LOGIN_RELAY_SHUTDOWN_GRACE_MS at the latest.
    """
    os.environ[variable("redis_url")] = resolve_redis_url(load_settings(os.environ)) or ""
    sys.exit(main(until_stdin_closes=until_stdin_closes))
