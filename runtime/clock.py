"""Times are milliseconds since the epoch, as in Redis; this is how they are written."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis.asyncio import Redis


def rfc3339(milliseconds: int) -> str:
    """Return a time in milliseconds since the epoch as text like `2026-01-01T00:15:00.000Z`."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{_seconds_as_text(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=64)  # commands of a batch are of a few seconds
def _seconds_as_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


async def redis_now(redis: "Redis") -> int:
    """Return Redis' time in milliseconds since the epoch: the one clock that decides."""
    seconds, microseconds = await redis.time()
    return milliseconds_of(seconds, microseconds)


def milliseconds_of(seconds: int, microseconds: int) -> int:
    """Return the milliseconds since the epoch in a reply to TIME."""
    return int(seconds) * 1000 + int(microseconds) // 1000
