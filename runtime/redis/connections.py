"""The kinds of Redis connections that a process needs, each with its own time-outs. No other module opens one.

redis-py's defaults do not fit: it re-sends a timed-out command ten times, even a blocking read.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from runtime.errors import RelayUnavailableError, SettingError
from runtime.redis.client import BlockingRedis, LineRedis
from runtime.redis.line import Line
from runtime.redis.subscriber import Subscriber
from runtime.settings import Settings, variable

COMMAND_TIMEOUT = 2.0  # seconds; a script takes microseconds, so silence means that Redis is in trouble
CONNECT_TIMEOUT = 1.0  # seconds
COMMAND_RETRIES = 3  # after a lost connection
MAX_TRANSACTIONS = 8  # at once in a process, each on a connection of its own
ROOM_WAIT = 2.0  # seconds; a request that finds too much under way for this long is refused

CONNECTION_LOST = (RedisConnectionError, RedisTimeoutError, OSError)
"""What redis-py raises if the connection is lost. Its TimeoutError is not a ConnectionError."""
REDIS_TROUBLE = (RedisError, OSError)
"""What a command may raise: Redis is lost, or it refuses. Python's TimeoutError is an OSError."""


def command_client(settings: Settings, name: str) -> Redis:
    """Return the client for scripts and reads. It may re-send a command: every script is idempotent.

    Raises:
        SettingError: the Redis URL is missing or malformed.

    """
    options = _options(settings, name, COMMAND_TIMEOUT)
    line = Line(_dialler(options), reply_within=COMMAND_TIMEOUT, retries=COMMAND_RETRIES, patience=ROOM_WAIT)
    return LineRedis(line, _pool(options))


def reader_client(settings: Settings, name: str) -> Redis:
    """Return the client for one loop's blocking reads. It has one connection and never re-sends a command."""
    timeout = settings.socket_timeout_ms / 1000
    options = _options(settings, name, timeout)
    return BlockingRedis(Line(_dialler(options), reply_within=timeout, retries=0, patience=ROOM_WAIT), _pool(options))


def subscriber(settings: Settings, name: str) -> Subscriber:
    """Return what listens to channels.

    Raises:
        SettingError: the Redis URL is missing or malformed.

    """
    return Subscriber(_dialler(_options(settings, name, COMMAND_TIMEOUT)))


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


def _dialler(options: dict[str, Any]) -> Callable[[], AbstractConnection]:
    """Return a function that returns a connection, not open yet, with these options."""
    kind: type[AbstractConnection] = options.get("connection_class", Connection)
    of_connection = {name: value for name, value in options.items() if name != "connection_class"}
    return lambda: kind(**of_connection)


def _pool(options: dict[str, Any]) -> BlockingConnectionPool:
    """Return the connections that are not a line: of transactions."""
    return BlockingConnectionPool(**options, max_connections=MAX_TRANSACTIONS, timeout=ROOM_WAIT)


def _options(settings: Settings, name: str, timeout: float) -> dict[str, Any]:
    """Return the options of a connection, which override the URL's. A reply may take `timeout` seconds."""
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
        "client_name": name,
        "protocol": 3,
        "legacy_responses": False,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": False,
    }
