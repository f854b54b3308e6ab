"""What all endpoints with a JSON body share: the request as they read it, their time limits, and their answers.

A pending poll costs little more than the web server itself. Therefore a body is read without Litestar's stream of
chunks, and an answer is sent as two messages, without Litestar's response object.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from litestar import Request, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.spec import Operation
from litestar.types import Receive, Scope, Send

from api.request.address import Sender, sender
from api.request.body import T, parse_body
from api.request.headers import Headers, idempotency_key, wait_preference
from api.request.incoming import Incoming, discard
from api.request.note import note_cut
from api.request.refusals import TooSlow
from runtime.address import Network

JsonRequest = Request[Any, Any, Any]


class JsonResponse(NamedTuple):
    """An answer, as an ASGI application. It may be sent any number of times."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send the answer."""
        length = str(len(self.body)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length), *self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


class Bounds(NamedTuple):
    """The limits of all requests."""

    reading: float
    """Seconds that a body may take to arrive. (The server limits the time for the head.)"""
    answering: float
    """Seconds that the answer may take after that."""
    trusted_proxies: Sequence[Network]
    incoming: Incoming


class Asked:
    """A request, as an endpoint reads it."""

    __slots__ = ("_bounds", "_has_ended", "_limit", "_request", "headers", "is_receiving", "was_asked_for")

    def __init__(self, request: JsonRequest, limit: asyncio.Timeout, bounds: Bounds) -> None:
        self._request = request
        self._limit = limit
        self._bounds = bounds
        self.headers: Headers = dict(request.scope["headers"])
        self._has_ended = False
        self.was_asked_for = False
        self.is_receiving = False

    async def json(self, decoder: msgspec.json.Decoder[T]) -> T:
        """Receive the body and return it decoded.

        Call it after the credentials have been checked: a request that fails the check is answered without its body.

        Raises:
            TooLarge, TooMuchAtOnce, Unreadable, Misfit: depending on what is wrong with it.

        """
        loop = asyncio.get_running_loop()
        due = loop.time() + self._bounds.reading
        if due < (self._limit.when() or 0):  # by default it is not: moving the limit costs as much as reading a body
            self._limit.reschedule(due)
        self.was_asked_for = self.is_receiving = True
        body, self._has_ended = await self._bounds.incoming.receive(self._request.receive, self.headers)
        self.is_receiving = False
        self._limit.reschedule(loop.time() + self._bounds.answering)
        return parse_body(body, self.headers, decoder)

    @property
    def idempotency_key(self) -> str | None:
        """The Idempotency-Key. Raises `Misfit` if it is not valid."""
        return idempotency_key(self.headers)

    @property
    def wait(self) -> int | None:
        """The seconds for which the client asks to hold the answer (`Prefer: wait=N`)."""
        return wait_preference(self._request.scope["headers"]) if b"prefer" in self.headers else None

    @property
    def gone(self) -> Callable[[], Awaitable[object]]:
        """A function to await, during `hold`, that returns when the client has gone away: nothing else can arrive."""
        return self._request.receive

    def sender(self) -> Sender:
        """Return who sent the request."""
        return sender(self._request.scope, self._bounds.trusted_proxies)

    async def hold(self, seconds: float) -> None:
        """Give the answer `seconds` more; read the body to its end, so that `gone` waits for the client to leave."""
        self._limit.reschedule(asyncio.get_running_loop().time() + self._bounds.answering + seconds)
        if not self._has_ended:
            await self._request.receive()
            self._has_ended = True


class JsonEndpoint(Protocol):
    """Answers requests with a JSON body."""

    operation: Operation
    """Its description in the OpenAPI document."""

    async def __call__(self, asked: Asked) -> JsonResponse:
        """Answer one request, or raise its refusal."""


def json_post(path: str, endpoint: JsonEndpoint, bounds: Bounds) -> HTTPRouteHandler:
    """Return Litestar's handler for an endpoint of POST.

    The handler raises what the endpoint raises, `TooSlow` if the body took too long, and `TimeoutError` if the answer
    did. If a request is refused before its body was read, only a small body is still received.
    """
    longer = max(bounds.reading, bounds.answering)

    @post(path, status_code=200, operation_id=endpoint.operation.operation_id)
    async def handle(request: JsonRequest) -> JsonResponse:
        limit = asyncio.timeout(longer)
        asked = Asked(request, limit, bounds)
        try:
            async with limit:
                await asyncio.sleep(0)  # the server reads in another thread: a turn later the body is there to be taken
                return await endpoint(asked)
        except Exception as error:
            if asked.is_receiving or not (asked.was_asked_for or await discard(request.receive, asked.headers)):
                note_cut()
            if isinstance(error, TimeoutError) and asked.is_receiving:
                raise TooSlow from None
            raise

    return handle
