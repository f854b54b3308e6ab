"""Signs of life: what each worker process leaves in Redis while all of its loops make progress."""

import msgspec

LIFE_MS = 5_000  # a sign is good for this long: five periods


class SignOfLife(msgspec.Struct, frozen=True):
    """What a worker tells of itself."""

    host: str
    pid: int
    started_at: float
    """Seconds since the epoch, by the worker's own clock."""
