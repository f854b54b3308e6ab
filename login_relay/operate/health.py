"""`login-relay health`: the command for the health check of a container."""

import os
import socket

import click
import httpx

from api.server.listening import base_url
from login_relay.operate.relay import Relay, on_relay
from runtime.settings import load_settings
from statemachine.store.workers import read_workers

TIMEOUT = 2.0  # seconds; an API that takes longer is not healthy


@click.group()
def health() -> None:
    """Say whether a process of this machine works: exit code 0 yes, 1 no."""


@health.command("api")
@click.option("--url", help="The API's base URL.  [default: the address that the settings name]")
def health_api(url: str | None) -> None:
    """Check whether the API can serve a request now."""
    settings = load_settings(os.environ)
    base = (url or base_url(settings.host, settings.port)).rstrip("/")
    try:
        answer = httpx.get(f"{base}/health/ready", timeout=TIMEOUT, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        message = f"{base} does not answer: {error}"
        raise click.ClickException(message) from None
    if answer.status_code != httpx.codes.OK:
        message = f"{base} is not ready: HTTP {answer.status_code}"
        raise click.ClickException(message)
    click.echo("ready")


@health.command("worker")
@on_relay
async def health_worker(relay: Relay) -> None:
    """Check for a recent heartbeat of a worker on this machine."""
    host = socket.gethostname()
    if not any(worker.alive and worker.host == host for worker in await read_workers(relay.redis, relay.keys)):
        message = f"no worker on {host} gives a sign of life"
        raise click.ClickException(message)
    click.echo("alive")
