"""`GET /auth/cli/events`: a project's events as Server-Sent Events (HTML Standard §9.2)."""

import asyncio
from typing import Any, assert_never, get_args

from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.spec import Example, OpenAPIMediaType, OpenAPIType, Schema
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Message, Receive, ReceiveMessage, Send

from api.event_stream.feed import Feed
from api.event_stream.refusals import CursorNotOurs, EventsGone, StreamRefusal, TooManyStreams
from api.event_stream.stream import EventStream
from api.request.refusals import Misfit
from api.stack.access import Access, require_server_access
from api.stack.described import SESSION_ID, Bodies, answer, error_answers, header_parameter, operation, refusals
from api.stack.errors import EVENTS_GONE, STORE_AWAY, TOO_MANY_STREAMS, KnownError, PlainError, of_request
from runtime.redis.connections import REDIS_TROUBLE

_REFUSED = {
    **refusals(["INSUFFICIENT_ACCESS_TYPE"], too_many=[TOO_MANY_STREAMS]),
    410: Bodies(texts=(EVENTS_GONE,)),
}
_EXAMPLE = (
    ": connected\r\nid: k88AAAGbdtqoAAAA\r\n\r\n"
    "id: k88AAAGbdtrPEAAA\r\nevent: session.consumed\r\n"
    f'data: {{"specversion":"1.0","id":"{SESSION_ID}.3","source":"login-relay","type":"session.consumed",'
    f'"subject":"{SESSION_ID}","time":"2026-01-01T00:00:10.000Z","version":3,'
    '"data":{"project_id":"7f6a8a4e-52a1-4c6c-9d1f-0a8f3f1f6f52"}}\r\n\r\n'
)
_STREAM = answer("The events of the project, from now or from `Last-Event-ID` on.", Bodies(), overridden=_REFUSED)
_STREAM.content = {
    **(_STREAM.content or {}),
    "text/event-stream": OpenAPIMediaType(
        Schema(type=OpenAPIType.STRING, description="Server-Sent Events (HTML Standard, 9.2)."),
        examples={"the end of a login": Example(value=_EXAMPLE)},
    ),
}
OPERATION = operation(
    "events",
    "Hear what happens to logins",
    "Server access or higher. Server-Sent Events without end: `event` is the type, `data` a CloudEvent in JSON "
    "(docs/events.schema.json describes each type), `id` a place in all partitions' events. A comment every 15 "
    "seconds keeps the connection open and may bring a newer id. Who reads too slowly is disconnected.",
    {"200": _STREAM, **error_answers(_REFUSED, [STORE_AWAY])},
    header_parameter(
        "Last-Event-ID",
        "The last id that the client received: go on exactly after it. Absent: begin now.",
        Schema(type=OpenAPIType.STRING, pattern="^[A-Za-z0-9_-]+$"),
    ),
    tag="events",
)


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
            return of_request(Misfit("Expected an id that this relay sent", "in header Last-Event-ID"))
        case EventsGone():
            return PlainError(410, EVENTS_GONE)
        case TooManyStreams(retry_after=seconds):
            return PlainError(429, TOO_MANY_STREAMS, retry_after=seconds)
        case _:
            assert_never(refusal)


def events_endpoint(access: Access, feed: Feed) -> HTTPRouteHandler:
    """Return the endpoint."""

    @get("/auth/cli/events", operation_id=OPERATION.operation_id)
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
                return True  # the key was valid, and without Redis no event comes
            return True

        try:
            cursor = await feed.start(caller.project.id, headers.get(b"last-event-id"))
        except get_args(StreamRefusal) as refusal:
            raise of_stream(refusal) from None
        return EventStreamResponse(feed, EventStream(feed, caller.project.id, cursor, still_allowed))

    return events
