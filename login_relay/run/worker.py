"""`login-relay worker`: one worker process."""

import os
import sys

import click
import msgspec

from login_relay.run.embedded import resolve_redis_url
from runtime.lifeline import stop_when_stdin_closes
from runtime.redis.connections import command_client
from runtime.settings import load_settings, variable
from worker.__main__ import main


@click.command()
@click.option("--until-stdin-closes", is_flag=True, hidden=True)
def worker(*, until_stdin_closes: bool) -> None:
    """Decide the commands that the API records.

    Run as many as needed on one Redis; each takes its share. SIGTERM or Ctrl-C stops it when what it has in hand is
    done, or after LOGIN_RELAY_SHUTDOWN_GRACE_MS.
    """
    settings = load_settings(os.environ)
    settings = msgspec.structs.replace(settings, redis_url=resolve_redis_url(settings))
    _ = command_client(settings, "login-relay:worker")  # a malformed URL is told in this command's own words
    os.environ[variable("redis_url")] = settings.redis_url or ""
    if until_stdin_closes:
        stop_when_stdin_closes()
    sys.exit(main())
