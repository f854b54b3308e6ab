"""The kinds of Redis connections a process needs, each with the time-outs that its use demands. Nothing else opens one.

redis-py's defaults do not fit: it re-sends a timed-out command ten times, a blocking read among them.
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

COMMAND_TIMEOUT = 2.0  # seconds; every script takes microseconds, so silence means trouble
CONNECT_TIMEOUT = 1.0  # seconds
MAX_COMMAND_CONNECTIONS = 64  # per process; more only queue inside Redis
POOL_WAIT = 2.0  # seconds; a request that finds no free connection for this long is refused

CONNECTION_LOST = (RedisConnectionError, RedisTimeoutError, OSError)
"""What redis-py raises for a lost peer; its TimeoutError is not a ConnectionError."""
REDIS_TROUBLE = (RedisError, OSError)
"""Whatever can go wrong with a Redis: it is lost, or it refuses. Python's TimeoutError is an OSError."""


def command_client(settings: Settings, name: str) -> Redis:
    """Return the client for scripts and reads. It may re-send: every script is idempotent.

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
    """Return the client for one loop's blocking reads: one connection, never re-sent."""
    return Redis.from_pool(
        ConnectionPool(
            **_connection(
                settings,
                name,
                socket_timeout=settings.socket_timeout_ms / 1000,
                retry=Retry(NoBackoff(), 0),
                max_connections=1,
            )
        )
    )


def subscriber_client(settings: Settings, name: str) -> Redis:
    """Return the client for pub/sub. Its user probes it: redis-py sends PINGs too, but does not miss their answers."""
    return Redis.from_pool(
        ConnectionPool(
            **_connection(
                settings,
                name,
                socket_timeout=settings.socket_timeout_ms / 1000,
                retry=Retry(NoBackoff(), 0),
            )
        )
    )


def given_redis_url(settings: Settings) -> str | None:
    """Return the URL that the settings give, or that is in the file that they name; None if they do neither.

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
    """Say in one line why Redis could not be used."""
    if isinstance(error, CONNECTION_LOST):
        return RelayUnavailableError(f"Redis cannot be reached: {str(error).rstrip('.')}")
    # Of what Redis answers only the code: the rest of the text may quote what was sent.
    return RelayUnavailableError(f"Redis refused: {str(error).split(' ', 1)[0]}")


def needs_repair(error: ResponseError) -> bool:
    """Whether Redis refused a stream read for a reason that passes or that recreating the group mends."""
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
    """Return the code of an error of Redis (`NOGROUP`, …), else the error's type; the text may quote arguments."""
    return error_code(error) or type(error).__name__


def error_code(error: Exception) -> str:
    """Return the code of an error that Redis gave (`NOGROUP`, …); empty if the error is another one."""
    return str(error).split(" ", 1)[0] if isinstance(error, ResponseError) else ""


class _PackingInC:
    """Puts commands together with hiredis. redis-py's own asyncio connections do so in Python, five times as long."""

    def pack_command(self, name: str, *args: bytes | str | float) -> list[bytes]:
        """Return a command as it is sent; its name may be two words.

        Raises:
            DataError: an argument is of a type that Redis has not.

        """
        try:
            return [pack_command((*name.encode().split(), *args))]  # type: ignore[arg-type] # its stub names a pair
        except TypeError:
            raise DataError from None


def _connection(settings: Settings, name: str, **rules: object) -> dict[str, Any]:
    """Return what a pool makes connections from. What is ruled here wins over the URL's own parameters."""
    url = given_redis_url(settings)
    if url is None:
        message = f"{variable('redis_url')} is not set: name a Redis, or use `login-relay serve`, which brings its own"
        raise SettingError(message)
    try:
        from_url = parse_url(url)
    except ValueError:  # its text repeats the URL, which may hold a password
        names = f"{variable('redis_url')}, or the text in the file of {variable('redis_url_file')},"
        message = f"{names} is not a redis://, rediss:// or unix:// URL"
        raise SettingError(message) from None
    # `protocol` and `legacy_responses` pin one shape of reply for every version of the server.
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
