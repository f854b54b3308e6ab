"""The mechanical floor: the least that a JSON body, one Redis `GET` and a JSON answer cost on this web server.

`FLOOR_REDIS_URL=… python -m bench.load.mechanical_floor PORT`. An ASGI route of Litestar and a shared connection. The
web server's settings are the relay's own.
"""

import contextlib
import os
import sys
from collections.abc import AsyncIterator

import msgspec
from granian import Granian
from litestar import Litestar, asgi
from litestar.types import HTTPResponseBodyEvent, HTTPResponseStartEvent, Receive, Scope, Send

from api.server.http1 import HTTP_SERVER
from bench.load.shared_connection import SharedConnection

ANSWER = b'{"status":"waiting"}'
START: HTTPResponseStartEvent = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())],
}
BODY: HTTPResponseBodyEvent = {"type": "http.response.body", "body": ANSWER, "more_body": False}


class Poll(msgspec.Struct, frozen=True):
    """The body of a poll."""

    polling_code: str


def create_app() -> Litestar:
    """Return the application."""
    decoder = msgspec.json.Decoder(Poll)
    redis: SharedConnection

    @asgi("/poll", copy_scope=False)
    async def poll(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI
        await redis.execute("GET", decoder.decode(await _body(receive)).polling_code)
        await send(START)
        await send(BODY)

    @asgi("/hold", copy_scope=False)
    async def hold(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI
        decoder.decode(await _body(receive))
        await receive()  # returns when the client has gone
        await send(START)
        await send(BODY)

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        nonlocal redis
        redis = await SharedConnection.open(os.environ["FLOOR_REDIS_URL"])
        yield
        redis.close()

    return Litestar([poll, hold], lifespan=[lifespan], openapi_config=None, logging_config=None)


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += message["body"]
        if not message["more_body"]:
            return body


if __name__ == "__main__":
    Granian("unused: `serve` is given the application", port=int(sys.argv[1]), **HTTP_SERVER).serve(
        target_loader=create_app, wrap_loader=False
    )
