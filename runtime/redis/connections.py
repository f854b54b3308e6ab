"""The kinds of Redis connections that a process needs, each with its own time-outs. No other module opens one.

redis-py's defaults do not fit: it re-sends a timed-out command ten times, even a blocking read.
"""

from pathlib import Path
from typing import Any

from hiredis import pack_command
from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from runtime.errors import RelayUnavailableError, SettingError
from runtime.redis.pipelining import PipeliningRedis
from runtime.settings import Settings, variable

COMMAND_TIMEOUT = 2.0  # seconds; a script takes microseconds, so silence means that Redis is in trouble
CONNECT_TIMEOUT = 1.0  # seconds
MAX_COMMAND_CONNECTIONS = 64  # per process; commands on further ones would only wait inside Redis
POOL_WAIT = 2.0  # seconds; a request that finds no free connection for this long is refused

CONNECTION_LOST = (RedisConnectionError, RedisTimeoutError, OSError)
"""What redis-py raises if the connection is lost. Its TimeoutError is not a ConnectionError."""
REDIS_TROUBLE = (RedisError, OSError)
"""What a command may raise: Redis is lost, or it refuses. Python's TimeoutError is an OSError."""


def command_client(settings: Settings, name: str) -> Redis:
    """Return the client for scripts and reads. It may re-send a command: every script is idempotent.

    Raises:
        SettingError: the Redis URL is missing or malformed.

    """
    return PipeliningRedis.from_pool(
        BlockingConnectionPool(
            **_connection(
                settings,
                name,
                socket_timeout=COMMAND_TIMEOUT,
                retry=Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.2), 3),
                max_connections=MAX_COMMAND_CONNECTIONS,
                timeout=POOL_WAIT,
            )
        )
    )


def reader_client(settings: Settings, name: str) -> Redis:
    """Return the client for one loop's blocking reads. It has one connection and never re-sends a command."""
    return _blocking_client(settings, name, max_connections=1)


def subscriber_client(settings: Settings, name: str) -> Redis:
    """Return the client for pub/sub. Its caller must probe it: redis-py sends PINGs, but ignores a missing reply."""
    return _blocking_client(settings, name)


def given_redis_url(settings: Settings) -> str | None:
    """Return the Redis URL from the settings or from the file that they name; None if neither is set.

    Raises:
        SettingError: the file cannot be read, or is empty.

    """
    if settings.redis_url is not None or settings.redis_url_file is None:
        return settings.redis_url
    name = variable("redis_url_file")
    try:
        url = Path(settings.redis_url_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        message = f"{name}: the file cannot be read ({why})"
        raise SettingError(message) from None
    if not url:
        message = f"{name}: the file is empty"
        raise SettingError(message)
    return url


def unavailable(error: Exception) -> RelayUnavailableError:
    """Return the error that says in one line why Redis could not be used."""
    if isinstance(error, CONNECTION_LOST):
        return RelayUnavailableError(f"Redis cannot be reached: {str(error).rstrip('.')}")
    # Only the code of Redis' error: the rest of its text may quote what was sent.
    return RelayUnavailableError(f"Redis refused: {str(error).split(' ', 1)[0]}")


def needs_repair(error: ResponseError) -> bool:
    """Return whether Redis refused a stream read for a reason that passes by itself or by recreating the group."""
    return str(error).startswith(
        (
            "NOGROUP",
            "UNBLOCKED",
            "READONLY",
            "LOADING",
            "MOVED",
            "CLUSTERDOWN",
            "TRYAGAIN",
            "MASTERDOWN",
            "OOM",
        )
    )


def reason_of(error: Exception) -> str:
    """Return the code of an error that Redis sent (`NOGROUP`, …), or the type of any other: a text may hold secrets."""
    return error_code(error) or type(error).__name__


def error_code(error: Exception) -> str:
    """Return the code of an error that Redis sent (`NOGROUP`, …); empty for any other error."""
    return str(error).split(" ", 1)[0] if isinstance(error, ResponseError) else ""


class _PackingInC:
    """Packs commands with hiredis. redis-py's asyncio connections do it in Python, which takes five times as long."""

    def pack_command(self, name: str, *args: bytes | str | float) -> list[bytes]:
        """Return a command as it is sent. Its name may be two words.

        Raises:
            DataError: an argument has a type that cannot be sent.

        """
        try:
            return [pack_command((*name.encode().split(), *args))]  # type: ignore[arg-type] # its stub names a pair
        except TypeError:
            raise DataError from None


def _blocking_client(settings: Settings, name: str, **rules: object) -> Redis:
    """Return a client whose reads wait for up to the socket time-out, and which never re-sends."""
    waits = {"socket_timeout": settings.socket_timeout_ms / 1000, "retry": Retry(NoBackoff(), 0)}
    return Redis.from_pool(ConnectionPool(**_connection(settings, name, **waits, **rules)))


def _connection(settings: Settings, name: str, **rules: object) -> dict[str, Any]:
    """Return the options of a connection pool. `rules` and the options set here override the URL's."""
    url = given_redis_url(settings)
    if url is None:
        message = f"{variable('redis_url')} is not set: name a Redis, or use `login-relay serve`, which brings its own"
        raise SettingError(message)
    try:
        from_url = parse_url(url)
    except ValueError:  # its text quotes the URL, which may hold a password
        names = f"{variable('redis_url')}, or the text in the file of {variable('redis_url_file')},"
        message = f"{names} is not a redis://, rediss:// or unix:// URL"
        raise SettingError(message) from None
    # With `protocol` and `legacy_responses`, replies have the same shape whatever the server's version.
    return {
        **from_url,
        "connection_class": type("Connection", (_PackingInC, from_url.get("connection_class", Connection)), {}),
        "client_name": name,
        "protocol": 3,
        "legacy_responses": False,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "decode_responses": False,
        **rules,
    }
