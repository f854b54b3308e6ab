"""`GET /auth/cli/events`: a project's events as they happen, as Server-Sent Events (HTML Standard §9.2)."""

import asyncio
from typing import Any, assert_never, get_args

from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Message, Receive, ReceiveMessage, Send

from api.event_stream.feed import Feed
from api.event_stream.refusals import CursorNotOurs, EventsGone, StreamRefusal, TooManyStreams
from api.event_stream.stream import EventStream
from api.stack.access import Access, require_server_access
from api.stack.errors import EVENTS_GONE, TOO_MANY_STREAMS, KnownError, PlainError
from runtime.redis.connections import REDIS_TROUBLE


class EventStreamResponse(ASGIStreamingResponse):
    """Sends a stream to its client until the stream ends, or its client leaves or is dropped (ADR 16)."""

    __slots__ = ("_feed", "_inbox")

    def __init__(self, feed: Feed, stream: EventStream) -> None:
        # nginx would hold events back until its buffer is full.
        headers = {"x-accel-buffering": "no"}
        super().__init__(iterator=stream.chunks(), media_type="text/event-stream", headers=headers)
        self._feed = feed
        self._inbox = stream.inbox

    async def send_body(self, send: Send, receive: Receive) -> None:
        """Send, and return at once when the stream is over: also from a send that its client does not read."""
        over = self._inbox.over

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

        with self._feed.opened(self._inbox):
            await super().send_body(noting_the_end, left_or_over)


def of_stream(refusal: StreamRefusal) -> KnownError | PlainError:
    """Return the answer to a request whose stream is refused."""
    match refusal:
        case CursorNotOurs():
            message = "The request does not fit: Expected an id that this relay sent - in header Last-Event-ID"
            return KnownError("SCHEMA_ERROR", message, message=message)
        case EventsGone():
            return PlainError(410, EVENTS_GONE)
        case TooManyStreams(retry_after=seconds):
            return PlainError(429, TOO_MANY_STREAMS, retry_after=seconds)
        case _:
            assert_never(refusal)


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

        try:
            cursor = await feed.start(caller.project.id, headers.get(b"last-event-id"))
        except get_args(StreamRefusal) as refusal:
            raise of_stream(refusal) from None
        return EventStreamResponse(feed, EventStream(feed, caller.project.id, cursor, still_allowed))

    return events
