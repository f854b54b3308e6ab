"""`GET /auth/cli/events`: a project's events as they happen, as Server-Sent Events (HTML Standard §9.2)."""

import asyncio
from typing import Any

from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Message, Receive, ReceiveMessage, Send

from api.event_stream.feed import EventStream, Feed
from api.stack.access import Access, require_server_access
from api.stack.errors import KnownError
from runtime.redis.connections import REDIS_TROUBLE


class EventStreamResponse(ASGIStreamingResponse):
    """Sends a stream to its client until the stream ends, its client leaves or is dropped."""

    __slots__ = ("_events", "_feed")

    def __init__(self, feed: Feed, stream: EventStream) -> None:
        # nginx would hold events back until its buffer is full.
        headers = {"x-accel-buffering": "no"}
        super().__init__(iterator=stream.chunks(), media_type="text/event-stream", headers=headers)
        self._feed = feed
        self._events = stream

    async def send_body(self, send: Send, receive: Receive) -> None:
        """Send, and when the stream is over return at once: from a send that its client does not read, too."""
        over = self._events.over

        async def noting_the_end(message: Message) -> None:
            await send(message)
            if not message.get("more_body"):
                over.set()

        async def left_or_over() -> ReceiveMessage:
            leaving = asyncio.ensure_future(receive())
            ending = asyncio.ensure_future(over.wait())
            try:
                await asyncio.wait({leaving, ending}, return_when=asyncio.FIRST_COMPLETED)
                return leaving.result() if leaving.done() else {"type": "http.disconnect"}
            finally:
                leaving.cancel()
                ending.cancel()

        with self._feed.opened(self._events):
            await super().send_body(noting_the_end, left_or_over)


def events_endpoint(access: Access, feed: Feed) -> HTTPRouteHandler:
    """Return the endpoint."""

    @get("/auth/cli/events", operation_id="events")
    async def events(request: Request[Any, Any, Any]) -> ASGIResponse:
        headers = dict(request.scope["headers"])
        caller = await access.check(headers)
        require_server_access(caller)

        async def still_allowed() -> bool:
            try:
                require_server_access(await access.check(headers))
            except KnownError:
                return False
            except REDIS_TROUBLE:
                return True  # the key was good; without Redis there is nothing to tell it anyway
            return True

        cursor = await feed.start(caller.project.id, headers.get(b"last-event-id"))
        return EventStreamResponse(feed, EventStream(feed, caller.project.id, cursor, still_allowed))

    return events
