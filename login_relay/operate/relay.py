"""Connects an operator's command to the Redis of a running relay, for the duration of the command."""

import asyncio
import functools
import os
from collections.abc import Callable, Coroutine
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import click
import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from login_relay.run.embedded import resolve_redis_url
from login_relay.run.keys_file import kept_keys_file
from runtime.redis.connections import command_client, unavailable
from runtime.redis.keys import Keys
from runtime.settings import Settings, load_settings

P = ParamSpec("P")
R = TypeVar("R")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program to read.")


class Relay(NamedTuple):
    """A relay's Redis, with the settings and keys to read it."""

    settings: Settings
    redis: Redis
    keys: Keys


def on_relay(command: Callable[Concatenate[Relay, P], Coroutine[None, None, R]]) -> Callable[P, R]:
    """Return a synchronous command that runs a coroutine on a relay."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        settings = load_settings(os.environ)
        keys_file = kept_keys_file(settings)
        settings = msgspec.structs.replace(
            settings, redis_url=resolve_redis_url(settings), keys_file=None if keys_file is None else str(keys_file)
        )
        return asyncio.run(_connected(settings, lambda relay: command(relay, *args, **kwargs)))

    return run


async def _connected(settings: Settings, work: Callable[[Relay], Coroutine[None, None, R]]) -> R:
    redis = command_client(settings, "login-relay:operator")
    try:
        return await work(Relay(settings, redis, Keys(settings.prefix, settings.partitions)))
    except RedisError as error:
        raise unavailable(error) from None
    finally:
        await redis.aclose()
