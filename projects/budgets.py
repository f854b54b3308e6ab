"""The budgets: how many sessions may be initiated, and how many wrong codes are answered as such.

Wrong codes are counted over a window, across all processes and all endpoints that take a code. A right one costs
nothing here, and no budget keeps it from working. So it is the length of the codes that makes guessing hopeless
(`docs/adr/0009`); the budgets make it known, and slow down a client that heeds a 429.
An address is counted over all projects: what one tenant's tools use up refuses nobody's right code.
"""

from typing import Literal, NamedTuple

from redis.asyncio import Redis

from runtime.redis.keys import Keys
from runtime.redis.scripts import Script, run_script

_GUESS = Script.named("projects", "guess")


class InitiationLimits(NamedTuple):
    """How many sessions may be initiated."""

    window_ms: int
    """How long they are counted until the count starts again."""
    per_address: int
    per_project: int
    live_sessions: int
    """Of one project, at any time."""
    live_sessions_of_address: int
    """Of one client address in one project."""

    def share(self, partitions: int) -> "InitiationLimits":
        """Return the limits of one of `partitions`, rounded up."""
        return InitiationLimits(self.window_ms, *(-(-limit // partitions) for limit in self[1:]))


Budget = Literal["address", "key", "project"]


class Counted(NamedTuple):
    """A wrong code, counted."""

    now: int
    """Redis time in milliseconds."""
    over: Budget | None
    """The budget that is used up, if one is."""
    wait_ms: int
    """Until that budget starts again."""
    wrong_codes: int
    """How many were counted against it."""


class Guesses:
    """The counters of wrong codes. They share one slot of their own, so that one script counts a guess in all."""

    def __init__(
        self, redis: Redis, keys: Keys, *, window_ms: int, per_address: int, per_key: int, per_project: int
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._window_ms = window_ms
        self._limits: dict[Budget, int] = {"address": per_address, "key": per_key, "project": per_project}

    async def count(self, address: str, project_id: str, key: str) -> Counted:
        """Count a wrong code that came from an address, for a project, with the key of this name. One round trip."""
        counters = (
            self._keys.wrong_codes_of_address(address),
            self._keys.wrong_codes_with_key(project_id, key),
            self._keys.wrong_codes_in_project(project_id),
        )
        call = _GUESS.call(counters=counters, window_ms=self._window_ms, limits=tuple(self._limits.values()))
        match await run_script(self._redis, _GUESS, call):
            case [int(now), int(position), int(wait_ms), int(wrong_codes)]:
                return Counted(now, (None, *self._limits)[position], wait_ms, wrong_codes)
            case reply:
                message = f"guess.lua answered {type(reply).__name__}"
                raise TypeError(message)

    def magnitude(self, counted: Counted) -> int:
        """Return how far a budget is exceeded: 0 at first, then one more at each tenfold of it."""
        return len(str(counted.wrong_codes // self._limits[counted.over])) - 1 if counted.over else 0
