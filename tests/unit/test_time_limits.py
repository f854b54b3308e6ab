import asyncio
import gc
import weakref
from contextvars import ContextVar

import pytest

from api.request.time_limits import STEP, Limited, TimeLimits
from tests.support.eventually import wait_until

SOON = 3 * STEP


class Noted(Limited):
    """Notes when it expired."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at: float | None = None

    def expire(self) -> None:
        """Note the time."""
        assert self.at is None
        self.at = now()


def now() -> float:
    """Return the event loop's time."""
    return asyncio.get_running_loop().time()


@pytest.fixture
async def limits() -> TimeLimits:
    """The limits of this test's loop."""
    return TimeLimits()


async def test_limit_expires_once_and_never_early(limits: TimeLimits) -> None:
    """Each of many, in whatever order they were set."""
    watched = [Noted() for _ in range(20)]
    for number, each in enumerate(watched):
        limits.watch(each, now() + (number * 7 % 20) * STEP / 4)
    await wait_until(lambda: all(each.at is not None for each in watched))
    assert all(each.at is not None and each.at >= each.due for each in watched)


async def test_moved_limit_counts_from_its_new_place(limits: TimeLimits) -> None:
    """Later or earlier: only the last place counts."""
    later, earlier = Noted(), Noted()
    limits.watch(later, now())
    limits.watch(earlier, now() + 3_600)
    limits.watch(later, now() + SOON)
    limits.watch(earlier, now())
    await wait_until(lambda: earlier.at is not None)
    assert later.at is None
    await wait_until(lambda: later.at is not None)
    assert later.at is not None
    assert later.at >= later.due


async def test_forgotten_limit_does_not_expire(limits: TimeLimits) -> None:
    """What is over cannot be overdue; it may be forgotten twice."""
    forgotten, other = Noted(), Noted()
    limits.watch(forgotten, now())
    limits.watch(other, now() + STEP)
    limits.forget(forgotten)
    limits.forget(forgotten)
    await wait_until(lambda: other.at is not None)
    assert forgotten.at is None


async def test_new_limit_is_noticed_after_all_others_are_over(limits: TimeLimits) -> None:
    """The timer that stopped because nothing was left to watch is set again."""
    first, second = Noted(), Noted()
    limits.watch(first, now())
    await wait_until(lambda: first.at is not None)
    limits.watch(second, now())
    await wait_until(lambda: second.at is not None)


async def test_timer_keeps_no_context_of_a_request(limits: TimeLimits) -> None:
    """The request that sets the timer is not kept in memory until it rings."""

    class Kept:
        """Something of a request."""

    variable: ContextVar[Kept] = ContextVar("kept")

    async def request() -> weakref.ref[Kept]:
        kept = Kept()
        variable.set(kept)
        limits.watch(Noted(), now() + 3_600)
        return weakref.ref(kept)

    left = await asyncio.create_task(request())
    await asyncio.sleep(0)  # the loop still refers to what it ran last
    gc.collect()
    assert left() is None
