"""One client's stream: what it missed, read for it alone, then what the feed has. Each event once.

A client that reads too slowly is dropped, so that no stream grows without bound.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import structlog
from litestar.response import ServerSentEventMessage

from api.event_stream.feed import Feed, Frame, Inbox, encode_frame
from events.cursor import Cursor, encode_cursor
from runtime.redis.connections import REDIS_TROUBLE

HEARTBEAT_PERIOD = 15.0  # seconds; proxies close a connection on which nothing was sent for longer

_log = structlog.get_logger("api")


class _NotAllowedError(Exception):
    """The client's key is not valid any more."""


class EventStream:
    """One client's events, from a cursor on."""

    def __init__(
        self,
        feed: Feed,
        project_id: str,
        cursor: Cursor,
        still_allowed: Callable[[], Awaitable[bool]],
        *,
        heartbeat_period: float = HEARTBEAT_PERIOD,
    ) -> None:
        self.inbox = Inbox(project_id)
        self._feed = feed
        self._position = list(cursor)
        """Up to here its client has its project's events."""
        self._still_allowed = still_allowed
        self._heartbeat_period = heartbeat_period
        self._beat_at = 0.0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield what to send, until the end."""
        self._beat_at = asyncio.get_running_loop().time() + self._heartbeat_period
        yield self._mark("connected")
        try:
            async for chunk in self._missed():  # all but the last of it, without holding a place in the feed
                yield chunk
            self._feed.join(self.inbox, tuple(self._position))
            async for chunk in self._missed():  # what came up to the joining; the feed may have it too
                yield chunk
            async for chunk in self._fed():
                yield chunk
        except _NotAllowedError:
            return
        except REDIS_TROUBLE as error:
            _log.warning("event stream ended", error=type(error).__name__)  # its client comes back with its last id

    async def _missed(self) -> AsyncIterator[bytes]:
        complete = False
        while not complete and not self._feed.draining:
            if self._is_beat():
                yield await self._heartbeat()
            try:
                async with asyncio.timeout_at(self._beat_at):  # other projects and streams have their turns too
                    batch = await self._feed.catch_ups.read(self.inbox.project_id, tuple(self._position))
            except TimeoutError:
                continue
            complete = batch.complete
            self._position = list(batch.cursor)
            if batch.events:
                yield b"".join(encode_frame(logged).data for logged in batch.events)

    async def _fed(self) -> AsyncIterator[bytes]:
        is_last = False
        while not is_last:
            if self._is_beat():
                if self.inbox.waiting.empty():  # move on past the events of other projects
                    self._position = [max(pair) for pair in zip(self._position, self._feed.cursor, strict=True)]
                yield await self._heartbeat()
            try:
                async with asyncio.timeout_at(self._beat_at):
                    first = await self.inbox.waiting.get()
            except TimeoutError:
                continue
            chunk, is_last = self._take(first)
            if chunk:
                yield chunk

    def _take(self, frame: Frame | None) -> tuple[bytes, bool]:
        """Return a first frame and all that wait behind it, and whether they are the last."""
        taken = []
        waiting = self.inbox.waiting
        while frame is not None:
            logged = frame.logged
            if logged.entry_id > self._position[logged.partition]:  # else it was read before the joining
                self._position[logged.partition] = logged.entry_id
                taken.append(self._data_of(frame))
            if waiting.empty():
                return b"".join(taken), False
            frame = waiting.get_nowait()
        return b"".join(taken), True

    def _data_of(self, frame: Frame) -> bytes:
        """Return a frame's bytes, with an id from which its client can go on without a repetition.

        Of two entries of the same millisecond in two partitions, the stream may have read the later one before the feed
        has the earlier one: by the feed's id, the client would receive the later one again.
        """
        position, cursor = self._position, frame.logged.cursor
        if all(own <= theirs for own, theirs in zip(position, cursor, strict=True)):
            return frame.data
        return encode_frame(frame.logged._replace(cursor=tuple(map(max, position, cursor)))).data

    def _is_beat(self) -> bool:
        return asyncio.get_running_loop().time() >= self._beat_at

    async def _heartbeat(self) -> bytes:
        """Return a comment that keeps the connection open and brings the client's last id up to date.

        Raises:
            _NotAllowedError: the client's key is not valid any more.

        """
        if not await self._still_allowed():
            raise _NotAllowedError
        self._beat_at = asyncio.get_running_loop().time() + self._heartbeat_period
        return self._mark("heartbeat")

    def _mark(self, comment: str) -> bytes:
        # An id without data tells a client where to go on, and is no event (HTML Standard §9.2.6).
        cursor = encode_cursor(tuple(self._position))
        return ServerSentEventMessage(comment=comment, id=cursor, data=None).encode()
