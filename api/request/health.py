"""`/health/live` and `/health/ready`: whether the process runs, and whether it could serve a request now."""

import asyncio
from typing import Literal

import msgspec
from litestar import get
from litestar.enums import MediaType
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from runtime.codes import new_session_id
from runtime.redis.connections import COMMAND_TIMEOUT
from statemachine.store.reading import Sessions


class Health(msgspec.Struct, frozen=True):
    """The answer of a healthy process."""

    status: Literal["live", "ready"]


LIVE = msgspec.json.encode(Health("live"))
READY = msgspec.json.encode(Health("ready"))


def health_endpoints(sessions: Sessions) -> list[HTTPRouteHandler]:
    """Return the handlers of both endpoints."""

    @get("/health/live", operation_id="live", media_type=MediaType.JSON)
    async def live() -> ASGIResponse:
        return ASGIResponse(body=LIVE)

    @get("/health/ready", operation_id="ready", media_type=MediaType.JSON)
    async def ready() -> ASGIResponse:
        # A script instead of PING, because requests need scripts. Without Redis it raises, and the answer is 503.
        async with asyncio.timeout(COMMAND_TIMEOUT):  # otherwise probes would pile up while Redis hangs
            await sessions.read(new_session_id(0))
        return ASGIResponse(body=READY)

    return [live, ready]
