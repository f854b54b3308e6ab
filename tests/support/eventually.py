"""Waiting in tests: for a condition, never for a time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

STEP = 0.01  # seconds between two looks


@overload
async def wait_until(predicate: Callable[[], Awaitable[T]], within: float = ...) -> T: ...
@overload
async def wait_until(predicate: Callable[[], T], within: float = ...) -> T: ...
async def wait_until(predicate: Callable[[], T | Awaitable[T]], within: float = 5.0) -> T:
    """Return the first truthy value of `predicate`; call it at least once.

    Raises:
        AssertionError: no value was truthy within `within` seconds; the message shows the last one.

    """
    until = time.monotonic() + within
    while True:
        given = predicate()
        value: T = await given if inspect.isawaitable(given) else given
        if value:
            return value
        if time.monotonic() > until:
            message = f"{getattr(predicate, '__qualname__', predicate)} gave {value!r} for {within} s"
            raise AssertionError(message)
        await asyncio.sleep(STEP)
