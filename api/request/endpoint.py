"""What all endpoints share: a request as they read it, its time limits, its answer, and the route to them.

A pending poll costs little more than the web server itself. Therefore nothing is made for a request that it may not
need: its body is read without Litestar's stream of chunks, its answer is sent as two messages, and a POST to exactly
the path of an endpoint does not pass through Litestar (docs/adr/0019-the-path-of-a-request.md).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, cast

import msgspec
from litestar import Request, route
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.spec import Operation
from litestar.types import HTTPScope, Receive, Send

from api.request.address import Sender, sender
from api.request.answer import Answer
from api.request.body import T, parse_body
from api.request.headers import Header, Headers, idempotency_key, wait_preference
from api.request.incoming import Incoming, discard
from api.request.note import Note, Noting
from api.request.refusals import TooSlow
from api.request.time_limits import Limited, TimeLimits
from runtime.address import Network


class Bounds(NamedTuple):
    """The limits of all requests."""

    reading: float
    """Seconds that a body may take to arrive. (The server limits the time for the head.)"""
    answering: float
    """Seconds that the check of the credentials may take before that, and the answer after it."""
    trusted_proxies: Sequence[Network]
    incoming: Incoming
    time_limits: TimeLimits


class Asked(Limited):
    """A request, as an endpoint reads it."""

    __slots__ = (
        *("_bounds", "_has_ended", "_is_overdue", "_loop", "_receive", "_scope", "_task"),
        *("headers", "is_receiving", "note", "was_asked_for"),
    )

    def __init__(self, scope: HTTPScope, receive: Receive, headers: Headers, note: Note, bounds: Bounds) -> None:
        self._scope = scope
        self._receive = receive
        self.headers = headers
        self.note = note
        self._bounds = bounds
        self._loop = asyncio.get_running_loop()
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._has_ended = False
        self._is_overdue = False
        self.was_asked_for = False
        self.is_receiving = False
        self._limit(bounds.answering)

    async def json(self, decoder: msgspec.json.Decoder[T]) -> T:
        """Receive the body and return it decoded.

        Call it after the credentials have been checked: a request that fails the check is answered without its body.

        Raises:
            TooLarge, TooMuchAtOnce, Unreadable, Misfit: depending on what is wrong with it.

        """
        return parse_body(await self.body(), self.headers, decoder)

    async def body(self) -> bytes:
        """Receive the body and return it; raises `TooLarge`, `TooMuchAtOnce` or `Unreadable`."""
        self._limit(self._bounds.reading)
        self.was_asked_for = self.is_receiving = True
        body, self._has_ended = await self._bounds.incoming.receive(self._receive, self.headers)
        self.is_receiving = False
        self._limit(self._bounds.answering)
        return body

    @property
    def query(self) -> bytes:
        """The query of the URI, as it was sent."""
        return self._scope["query_string"]

    def path_parameter(self, name: str) -> str:
        """Return the part of the path that stands where the route has a name."""
        value: str = self._scope["path_params"][name]
        return value

    @property
    def idempotency_key(self) -> str | None:
        """The Idempotency-Key. Raises `Misfit` if it is not valid."""
        return idempotency_key(self.headers)

    @property
    def wait(self) -> int | None:
        """The seconds for which the client asks to hold the answer (`Prefer: wait=N`)."""
        return wait_preference(self._scope["headers"]) if b"prefer" in self.headers else None

    @property
    def gone(self) -> Callable[[], Awaitable[object]]:
        """A function to await, during `hold`, that returns when the client has gone away: nothing else can arrive."""
        return self._receive

    def sender(self) -> Sender:
        """Return who sent the request."""
        return sender(self._scope, self._bounds.trusted_proxies)

    async def hold(self, seconds: float) -> None:
        """Give the answer `seconds` more; read the body to its end, so that `gone` waits for the client to leave.

        The scope is emptied, except for what `sender` reads: it is a KiB of every held poll.
        """
        self._limit(self._bounds.answering + seconds)
        if not self._has_ended:
            await self._receive()
            self._has_ended = True
        scope: dict[str, Any] = cast("dict[str, Any]", self._scope)
        kept = {name: scope[name] for name in ("client", "headers")}
        scope.clear()
        scope.update(kept)

    def _limit(self, seconds: float) -> None:
        self._bounds.time_limits.watch(self, self._loop.time() + seconds)

    def expire(self) -> None:
        """Cancel the request, which is over time."""
        self._is_overdue = True
        self._task.cancel()

    def is_overdue(self) -> bool:
        """Whether a cancellation was that of `expire` and no other, as `asyncio.timeout` tells them apart."""
        return self._is_overdue and not self._task.uncancel()

    def unlimit(self) -> None:
        """Let what follows take its time."""
        self._bounds.time_limits.forget(self)

    async def refused(self) -> None:
        """Receive what was not asked for, if it is small; note whether the answer comes before the end of the body.

        Afterwards it refers to the connection no longer. An exception may keep its traceback, and with it the frames of
        the request, until Python collects garbage, and the server would not close the connection before that.
        """
        if self.is_receiving or not (self.was_asked_for or await discard(self._receive, self.headers)):
            self.note.is_cut = True
        del self._receive, self._scope, self._task


Method = Literal["GET", "POST", "DELETE"]


async def _left_to_the_route(_: Request[Any, Any, Any]) -> None:
    """Note nothing and receive nothing: the `Route` does (a `before_request` hook, in place of the application's)."""


class Endpoint(Protocol):
    """Answers requests."""

    operation: Operation
    """Its description in the OpenAPI document."""

    async def __call__(self, asked: Asked) -> Answer:
        """Answer one request, or raise its refusal."""


class Dialect(Protocol):
    """What the answers of an interface have in common."""

    def refusal(self, error: Exception, path: str) -> Answer:
        """Return the answer to a request that came to an error; `TimeoutError` if it took too long."""

    async def head(self, note: Note, headers: Headers, status: int, own: list[Header]) -> tuple[int, list[Header]]:
        """Return the status that is sent, and all headers, for an answer with a status and headers of its own."""


class Route:
    """A path at which an endpoint is asked, by one method: an ASGI application."""

    def __init__(
        self,
        path: str,
        endpoint: Endpoint,
        dialect: Dialect,
        noting: Noting,
        bounds: Bounds,
        *,
        method: Method = "POST",
    ) -> None:
        self.path = path
        self.method: Method = method
        self._endpoint = endpoint
        self._dialect = dialect
        self._noting = noting
        self._bounds = bounds

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Send the endpoint's answer, or the dialect's to what it raised.

        A body that took too long is `TooSlow`, an answer that did a `TimeoutError`. If a request is refused before its
        body was read, only a small body is still received.
        """
        scope["path_template"] = self.path
        headers = dict(scope["headers"])
        note = self._noting.begin(scope, headers)
        asked = Asked(scope, receive, headers, note, self._bounds)
        refused: Answer | None = None
        try:
            answer = await self._endpoint(asked)
        except asyncio.CancelledError:
            if not asked.is_overdue():
                raise
            answer = refused = self._dialect.refusal(TooSlow() if asked.is_receiving else TimeoutError(), self.path)
        except Exception as error:  # noqa: BLE001 - the dialect knows which are defects
            answer = refused = self._dialect.refusal(error, self.path)
        finally:
            asked.unlimit()
        if refused is not None:
            await asked.refused()
        self._noting.end(note, answer.status)
        status, head = await self._dialect.head(note, headers, answer.status, answer.own_headers())
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})

    def handler(self) -> HTTPRouteHandler:
        """Return Litestar's handler: of requests that are no POST, or whose path is written in another way."""

        @route(
            self.path,
            http_method=[self.method],
            status_code=200,
            operation_id=self._endpoint.operation.operation_id,
            before_request=_left_to_the_route,
        )
        async def handle() -> Route:
            return self

        return handle
