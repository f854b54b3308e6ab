"""Times are milliseconds since the epoch, as in Redis; this is how they are written."""

from datetime import UTC, datetime


def rfc3339(milliseconds: int) -> str:
    """Return a time in milliseconds since the epoch as text like `2026-01-01T00:15:00.000Z`."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{milliseconds:03d}Z"
