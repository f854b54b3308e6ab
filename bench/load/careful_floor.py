"""The careful floor: the cost of any typed handler on this web server that reads Redis once, or holds a request.

`FLOOR_REDIS_URL=… python -m bench.load.careful_floor PORT`. Litestar decodes the body and encodes the answer; redis-py
sends one `GET`. The web server's settings are the relay's own.
"""

import contextlib
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from granian import Granian
from litestar import Litestar, Request, post
from redis.asyncio import Redis

from api.server.http1 import HTTP_SERVER


class Poll(msgspec.Struct, frozen=True):
    """The body of a poll."""

    polling_code: str


class Status(msgspec.Struct, frozen=True):
    """The answer to a pending poll."""

    status: str


def create_app() -> Litestar:
    """Return the application."""
    redis = Redis.from_url(os.environ["FLOOR_REDIS_URL"], protocol=3, max_connections=256)

    @post("/poll", status_code=200)
    async def poll(data: Poll) -> Status:
        await redis.get(data.polling_code)
        return Status("waiting")

    @post("/hold", status_code=200)
    async def hold(data: Poll, request: Request[Any, Any, Any]) -> Status:  # noqa: ARG001 - so that it is read
        await request.receive()  # returns when the client has gone
        return Status("waiting")

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        yield
        await redis.aclose()

    return Litestar([poll, hold], lifespan=[lifespan], openapi_config=None, logging_config=None)


if __name__ == "__main__":
    Granian("unused: `serve` is given the application", port=int(sys.argv[1]), **HTTP_SERVER).serve(
        target_loader=create_app, wrap_loader=False
    )
