"""The budgets: how many sessions may be initiated, and how many wrong codes are answered as such.

Wrong codes are counted over a window, across all processes and all endpoints that take a code. A right code costs
nothing here, and works whatever the budgets. So the length of the codes makes guessing hopeless (`docs/adr/0009`);
budgets make attacks visible and slow down clients that honour 429. Wrong codes of an address are counted over all
projects: one tenant's tools can use that budget up, but no right code is refused for it.
"""

from typing import Literal, NamedTuple

from redis.asyncio import Redis

from projects.errors import InitiationRefusedError
from runtime.redis.keys import Keys
from runtime.redis.scripts import Script, run_script

_GUESS = Script.named("projects", "guess")


class InitiationLimits(NamedTuple):
    """How many sessions may be initiated, and how many may be live."""

    window_ms: int
    """How long initiations are counted until the count starts again."""
    per_address: int
    per_project: int
    live_sessions: int
    """Live sessions of one project, at any time."""
    live_sessions_of_address: int
    """Live sessions of one client address in one project."""

    def share(self, partitions: int) -> "InitiationLimits":
        """Return the limits of one of `partitions`, rounded up."""
        return InitiationLimits(self.window_ms, *(-(-limit // partitions) for limit in self[1:]))


Budget = Literal["address", "key", "project"]


class Counted(NamedTuple):
    """The result of counting a wrong code."""

    now: int
    """Redis time in milliseconds."""
    over: Budget | None
    """The budget that is used up; None if none is."""
    wait_ms: int
    """The time until that budget starts again."""
    wrong_codes: int
    """How many wrong codes were counted against it."""


class Guesses:
    """The counters of wrong codes. They share a slot of their own, so that one script counts a guess in all of them."""

    def __init__(
        self, redis: Redis, keys: Keys, *, window_ms: int, per_address: int, per_key: int, per_project: int
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._window_ms = window_ms
        self._limits: dict[Budget, int] = {"address": per_address, "key": per_key, "project": per_project}

    async def count(self, address: str, project_id: str, key: str) -> Counted:
        """Count a wrong code of an address in a project, sent with the key of this name; return the result.

        One round trip.
        """
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
        """Return by how much a budget is exceeded: 0 at first, then one more at each tenfold of the budget."""
        return len(str(counted.wrong_codes // self._limits[counted.over])) - 1 if counted.over else 0


class SignUps:
    """The counters of anonymous subjects: as many as logins may begin in the same time, and counted apart from them."""

    def __init__(self, redis: Redis, keys: Keys, limits: InitiationLimits) -> None:
        self._redis = redis
        self._keys = keys
        self._limits = limits

    async def count(self, address: str, project_id: str) -> None:
        """Count one of an address in a project. One round trip.

        Raises:
            InitiationRefusedError: a budget is used up.

        """
        keys, limits = self._keys, self._limits
        call = _GUESS.call(
            counters=(keys.sign_ups_of_address(project_id, address), keys.sign_ups_in_project(project_id)),
            window_ms=limits.window_ms,
            limits=(limits.per_address, limits.per_project),
        )
        match await run_script(self._redis, _GUESS, call):
            case [int(_), 0, int(_), int(_)]:
                return
            case [int(now), int(position), int(wait_ms), int(_)]:
                raise InitiationRefusedError("address" if position == 1 else "project", wait_ms, now)
            case reply:
                message = f"guess.lua answered {type(reply).__name__}"
                raise TypeError(message)
