"""What the endpoints have in common that take a JSON body: what they are asked, in what time, and how they answer.

A pending poll costs little more than its web server; so a body is read without Litestar's stream of chunks, and an
answer is two messages, without the object that Litestar would make of it.
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
from api.request.refusals import TooLarge, TooSlow, Unreadable
from runtime.settings import Network

MAX_BODY_BYTES = 65_536

JsonRequest = Request[Any, Any, Any]


class JsonResponse(NamedTuple):
    """An answer (an ASGI application); it may be sent any number of times."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send it."""
        length = str(len(self.body)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length), *self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


class Bounds(NamedTuple):
    """What holds for all requests."""

    reading: float
    """Seconds that a body may take to arrive. (The server itself limits the time for the head.)"""
    answering: float
    """Seconds that an answer may take then."""
    trusted_proxies: Sequence[Network]


class Asked:
    """A request, as an endpoint reads it."""

    __slots__ = ("_body", "_bounds", "_limit", "_request", "headers")

    def __init__(
        self, request: JsonRequest, headers: Headers, body: bytes, limit: asyncio.Timeout, bounds: Bounds
    ) -> None:
        self._request = request
        self._body = body
        self._limit = limit
        self._bounds = bounds
        self.headers = headers

    def json(self, decoder: msgspec.json.Decoder[T]) -> T:
        """Return the body; raises `Unreadable` or `Misfit`."""
        return parse_body(self._body, self.headers, decoder)

    @property
    def idempotency_key(self) -> str | None:
        """The Idempotency-Key; raises `Misfit` if it is not a valid one."""
        return idempotency_key(self.headers)

    @property
    def wait(self) -> int | None:
        """The seconds for which the client wants the answer held (`Prefer: wait=N`)."""
        return wait_preference(self._request.scope["headers"]) if b"prefer" in self.headers else None

    @property
    def gone(self) -> Callable[[], Awaitable[object]]:
        """Returns once the client has gone away: the body was read, and nothing else can come."""
        return self._request.receive

    def sender(self) -> Sender:
        """Return where the request comes from."""
        return sender(self._request.scope, self._bounds.trusted_proxies)

    def hold(self, seconds: float) -> None:
        """Let the answer take so many seconds more."""
        self._limit.reschedule(asyncio.get_running_loop().time() + self._bounds.answering + seconds)


class JsonEndpoint(Protocol):
    """Answers requests with a JSON body."""

    operation: Operation
    """What the OpenAPI document says of it."""

    async def __call__(self, asked: Asked) -> JsonResponse:
        """Answer one request, or raise how it is refused."""


def json_post(path: str, endpoint: JsonEndpoint, bounds: Bounds) -> HTTPRouteHandler:
    """Return Litestar's handler of an endpoint that takes a POST.

    The whole body is read before anything is refused: the server closes a connection on which an answer overtook the
    body, and the client's next request would fail. What takes longer than `bounds` raises `TooSlow` (the body) or
    `TimeoutError` (the answer).
    """

    @post(path, status_code=200, operation_id=endpoint.operation.operation_id)
    async def handle(request: JsonRequest) -> JsonResponse:
        headers = dict(request.scope["headers"])
        body = None
        try:
            async with asyncio.timeout(bounds.reading) as limit:
                body = await _read(request, headers)
                limit.reschedule(asyncio.get_running_loop().time() + bounds.answering)
                return await endpoint(Asked(request, headers, body, limit, bounds))
        except TimeoutError:
            if body is None:
                raise TooSlow from None
            raise

    return handle


async def read_in_time(request: JsonRequest, seconds: float) -> None:
    """Read a body that nobody looks at.

    Raises:
        Unreadable: the client left before it had sent it all.
        TooSlow: it took too long to send.
        TooLarge: it is larger than `MAX_BODY_BYTES`.

    """
    try:
        async with asyncio.timeout(seconds):
            await _read(request, dict(request.scope["headers"]))
    except TimeoutError:
        raise TooSlow from None


async def _read(request: JsonRequest, headers: Headers) -> bytes:
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise TooLarge
    received = b""
    while True:
        message = await request.receive()
        if message["type"] != "http.request":
            raise Unreadable("The request body is not complete.")
        received += message["body"]
        if len(received) > MAX_BODY_BYTES:
            raise TooLarge
        if not message.get("more_body"):
            return received
