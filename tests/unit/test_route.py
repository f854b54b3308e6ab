import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
import pytest
from litestar.openapi.spec import Operation

from api.request.answer import Answer
from api.request.endpoint import Asked, Bounds, Route
from api.request.headers import Header, Headers
from api.request.incoming import Incoming
from api.request.note import Note, Noting
from api.request.refusals import TooSlow
from api.request.time_limits import TimeLimits

LONG, SHORT = 60.0, 0.01  # seconds
ENOUGH = 10.0  # seconds; until a test gives up
BODY = {"type": "http.request", "body": b"{}", "more_body": False}


class Body(msgspec.Struct):
    """Any object."""


class Answering:
    """An endpoint that does what it is given."""

    operation = Operation(operation_id="answer")

    def __init__(self, do: Callable[[Asked], Awaitable[Any]]) -> None:
        self._do = do

    async def __call__(self, asked: Asked) -> Answer:
        """Do it and answer."""
        await self._do(asked)
        return Answer(b"done")


class Naming:
    """A dialect of two words: it names the error, and whether the connection is closed."""

    def refusal(self, error: Exception, path: str) -> Answer:
        """Return the name of the error."""
        return Answer(f"{type(error).__name__} at {path}".encode(), 400)

    async def head(self, note: Note, _: Headers, status: int, own: list[Header]) -> tuple[int, list[Header]]:
        """Return only whether the connection is closed."""
        return status, [*own, (b"cut", str(note.is_cut).encode())]


class Exchange:
    """One request to an endpoint, with a body that arrives at once or never."""

    def __init__(
        self,
        do: Callable[[Asked], Awaitable[Any]],
        *,
        reading: float = LONG,
        answering: float = LONG,
        body: bool = True,
    ) -> None:
        bounds = Bounds(reading, answering, (), Incoming(), TimeLimits())
        noting = Noting((), None, counts=False, logs=False, as_json=False)
        self._route = Route("/path", Answering(do), Naming(), noting, bounds)
        self._body = body
        self.sent: list[Any] = []

    async def run(self) -> "Exchange":
        """Have it answered."""
        scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/path", "client": None}
        scope |= {"headers": [(b"content-type", b"application/json")]}
        async with asyncio.timeout(ENOUGH):
            await self._route(cast("Any", scope), cast("Any", self._receive), self._send)
        return self

    async def _receive(self) -> dict[str, Any]:
        if not self._body:
            await asyncio.get_running_loop().create_future()
        return BODY

    async def _send(self, message: object) -> None:
        self.sent.append(message)

    @property
    def answer(self) -> tuple[int, bytes]:
        """The status and the body of the answer."""
        return self.sent[0]["status"], self.sent[1]["body"]

    @property
    def is_cut(self) -> bool:
        """Whether the client is told that the connection will be closed."""
        return (b"cut", b"True") in self.sent[0]["headers"]


async def read(asked: Asked) -> None:
    """Read the body."""
    await asked.json(msgspec.json.Decoder(Body))


async def hang(asked: Asked) -> None:
    """Read the body, and never end."""
    await read(asked)
    await asyncio.get_running_loop().create_future()


async def test_request_in_order_is_answered() -> None:
    """In two messages, on a connection that stays open."""
    exchange = await Exchange(read).run()
    assert exchange.answer == (200, b"done")
    assert not exchange.is_cut


async def test_answer_that_takes_too_long_is_a_time_out() -> None:
    """The dialect answers it; the body was received, so the connection can be used again."""
    exchange = await Exchange(hang, answering=SHORT).run()
    assert exchange.answer == (400, b"TimeoutError at /path")
    assert not exchange.is_cut


async def test_body_that_takes_too_long_is_too_slow() -> None:
    """The rest of it will not be read, so the connection is closed."""
    exchange = await Exchange(read, reading=SHORT, body=False).run()
    assert exchange.answer == (400, f"{TooSlow.__name__} at /path".encode())
    assert exchange.is_cut


async def test_check_that_takes_too_long_is_a_time_out() -> None:
    """Before the body is asked for, the limit of answers holds."""

    async def check(_: Asked) -> None:
        await asyncio.get_running_loop().create_future()

    assert (await Exchange(check, answering=SHORT).run()).answer == (400, b"TimeoutError at /path")


async def test_held_answer_may_take_longer() -> None:
    """By what it is held for, in addition to the time of an answer."""

    async def hold(asked: Asked) -> None:
        await read(asked)
        await asked.hold(LONG)
        await asyncio.sleep(0.3)

    assert (await Exchange(hold, answering=SHORT).run()).answer == (200, b"done")


async def test_cancellation_from_outside_is_not_answered() -> None:
    """A process that stops must not wait for its requests; nothing is sent."""
    exchange = Exchange(hang)
    task = asyncio.create_task(exchange.run())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert exchange.sent == []


async def test_cancellation_from_outside_wins_over_a_time_out() -> None:
    """Both at once: the task is cancelled as `asyncio.timeout` would leave it."""
    exchange = Exchange(hang, answering=SHORT)
    cancelled = False

    async def hang_and_be_cancelled(asked: Asked) -> None:
        nonlocal cancelled
        try:
            await hang(asked)
        except asyncio.CancelledError:
            cast("asyncio.Task[None]", asyncio.current_task()).cancel()
            cancelled = True
            raise

    exchange = Exchange(hang_and_be_cancelled, answering=SHORT)
    task = asyncio.create_task(exchange.run())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled
    assert exchange.sent == []


@pytest.mark.parametrize(("body", "cut"), [(True, False), (False, True)])
async def test_refusal_before_the_body_waits_for_a_small_one_only(*, body: bool, cut: bool) -> None:
    """What has not arrived within a second will not be read."""

    async def refuse(_: Asked) -> None:
        raise ValueError

    exchange = await Exchange(refuse, body=body).run()
    assert exchange.answer == (400, b"ValueError at /path")
    assert exchange.is_cut is cut
