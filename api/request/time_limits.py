"""The time limits of a process' requests and held polls: one timer for all of them.

A timer for each, as `asyncio.timeout` sets it, costs a pending poll a twentieth of its time. So the limits of all are
looked at together, ten times a second at most and only when one may be over.
"""

import asyncio
import math
from contextvars import Context

STEP = 0.1  # seconds; what is over is noticed this much later at most


class Limited:
    """Something that must not last for ever."""

    __slots__ = ("due",)
    due: float
    """The event loop's time, in seconds, after which `expire` is called."""

    def expire(self) -> None:
        """End it. It is no longer watched."""
        raise NotImplementedError


class TimeLimits:
    """Watches the limits of one event loop."""

    def __init__(self) -> None:
        self._watched: set[Limited] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._early = math.inf
        """A limit up to here must move the timer to an earlier time."""

    def watch(self, limited: Limited, due: float) -> None:
        """Watch a limit, or move it if it is watched."""
        limited.due = due
        self._watched.add(limited)
        if due <= self._early:
            self._look_after(due)

    def forget(self, limited: Limited) -> None:
        """Watch a limit no longer."""
        self._watched.discard(limited)

    def _look_after(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        steps = math.ceil(due / STEP)
        self._early = (steps - 1) * STEP
        # In a context of its own: that of the request which happens to set the timer would live as long as it.
        self._timer = asyncio.get_running_loop().call_at(steps * STEP, self._look, context=Context())

    def _look(self) -> None:
        self._timer, self._early = None, math.inf
        now = asyncio.get_running_loop().time()
        over = [limited for limited in self._watched if limited.due <= now]
        self._watched.difference_update(over)
        if self._watched:
            self._look_after(max(min(limited.due for limited in self._watched), now))
        for limited in over:
            limited.expire()
