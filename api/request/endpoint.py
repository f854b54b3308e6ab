"""What the endpoints have in common that take a JSON body: how it is read, in what time, and how they answer.

A pending poll costs little more than its web server; so a body is read without Litestar's stream of chunks, and an
answer is two messages, without the object that Litestar would make of it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from litestar import Request
from litestar.types import Receive, Scope, Send

from api.request.refusals import TooLarge, TooSlow, Unreadable

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


async def answer_in_time(
    request: JsonRequest,
    answer: Callable[[JsonRequest, bytes], Awaitable[JsonResponse]],
    *,
    reading: float,
    answering: float,
) -> JsonResponse:
    """Read the whole body before anything is refused, then answer it; each in so many seconds.

    The server closes a connection on which an answer overtook the body, and the client's next request would fail.

    Raises:
        Unreadable: the client left before it had sent it all.
        TooSlow: it took too long to send. (The server itself limits the time for the head.)
        TooLarge: it is larger than `MAX_BODY_BYTES`.
        TimeoutError: the answer took too long.

    """
    body = None
    try:
        async with asyncio.timeout(reading) as limit:
            body = await _read(request)
            limit.reschedule(asyncio.get_running_loop().time() + answering)
            return await answer(request, body)
    except TimeoutError:
        if body is None:
            raise TooSlow from None
        raise


async def _read(request: JsonRequest) -> bytes:
    for name, value in request.scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > MAX_BODY_BYTES:
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


async def read_in_time(request: JsonRequest, seconds: float) -> None:
    """Read a body that nobody looks at; raises as `answer_in_time` does."""
    try:
        async with asyncio.timeout(seconds):
            await _read(request)
    except TimeoutError:
        raise TooSlow from None
