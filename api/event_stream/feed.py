"""One reader of the event log per process, and the streams of all its clients.

A stream that goes on from a cursor first reads by itself what its client missed, then joins the feed; what it hears
from both it tells once. A stream whose client reads too slowly is dropped: nothing here grows without bound.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import NamedTuple, NoReturn

import msgspec
import structlog
from litestar.response import ServerSentEventMessage
from redis.asyncio import Redis

from api.request.refusals import Misfit
from api.stack.errors import EVENTS_GONE, TOO_MANY_STREAMS, PlainError
from events.cursor import (
    Cursor,
    EntryId,
    decode_cursor,
    encode_cursor,
)
from events.log import EventLog, LoggedEvent
from runtime.loops import keep_running
from runtime.redis.connections import REDIS_TROUBLE

HEARTBEAT_PERIOD = 15.0  # seconds; proxies take a connection that is silent for longer for dead
MAX_WAITING = 4_096  # events that wait for one slow reader: four reads' worth, two megabytes
MAX_STREAMS = 100  # of one project in a process, which takes 16 384 connections; a backend needs one
ROOM_AFTER = 15  # seconds; a stream whose client has gone is noticed by then, at its next heartbeat
DRAIN_GRACE = 1.0  # seconds for streams to end by themselves; then those that nobody reads are cut

_log = structlog.get_logger("api")


class Frame(NamedTuple):
    """An event as its readers get it, and where it stands in the log."""

    partition: int
    entry_id: EntryId
    data: bytes


def _frame(logged: LoggedEvent) -> Frame:
    message = ServerSentEventMessage(
        data=msgspec.json.encode(logged.event), event=logged.event.type, id=encode_cursor(logged.cursor)
    )
    return Frame(logged.partition, logged.entry_id, message.encode())


class Feed:
    """Reads the log once for all streams of this process, as long as there are any."""

    def __init__(self, log: EventLog, redis: Redis, reader: Redis, block_ms: int) -> None:
        self.log = log
        self.redis = redis
        self.draining = False
        self.cursor: Cursor = ()
        """Up to here every stream that has joined was offered its project's events."""
        self._reader = reader
        self._block_ms = block_ms
        self._open: set[EventStream] = set()
        self._joined: dict[str, set[EventStream]] = defaultdict(set)
        """By project id."""
        self._wanted = asyncio.Event()

    async def start(self, project_id: str, last_event_id: bytes | None) -> Cursor:
        """Return where a stream begins: after the event that its client had last, or else now.

        Raises:
            Misfit: no relay with as many partitions gave this id.
            PlainError: events after it have been trimmed (410), or the project has too many streams already (429).

        """
        cursor = await self._start(last_event_id)
        if sum(stream.project_id == project_id for stream in self._open) >= MAX_STREAMS:
            raise PlainError(429, TOO_MANY_STREAMS, retry_after=ROOM_AFTER)
        return cursor

    async def _start(self, last_event_id: bytes | None) -> Cursor:
        if not last_event_id:
            return await self.log.end(self.redis)
        cursor = decode_cursor(last_event_id.decode("latin-1"), self.log.partitions)
        if cursor is None:
            raise Misfit("Expected an id that this relay sent", "in header Last-Event-ID")
        if not await self.log.has_all_after(self.redis, cursor):
            raise PlainError(410, EVENTS_GONE)
        return cursor

    @contextlib.contextmanager
    def opened(self, stream: "EventStream") -> Iterator[None]:
        """Know a stream as long as the context lasts."""
        self._open.add(stream)
        if self.draining:
            stream.end()
        try:
            yield
        finally:
            self._open.discard(stream)
            joined = self._joined[stream.project_id]
            joined.discard(stream)
            if not joined:
                del self._joined[stream.project_id]

    def join(self, stream: "EventStream", cursor: Cursor) -> None:
        """Offer an open stream all that comes after a cursor, or after an older one."""
        self._joined[stream.project_id].add(stream)
        if not self._wanted.is_set():
            self.cursor = cursor
            self._wanted.set()

    def drain(self) -> None:
        """Let all streams end now."""
        self.draining = True
        for stream in self._open:
            stream.end()
        asyncio.get_running_loop().call_later(DRAIN_GRACE, self._cut)

    async def run(self) -> None:
        """Read and hand out until cancelled."""
        await keep_running("feed", self._follow)

    async def _follow(self) -> NoReturn:
        """Begun again, it goes on where it was."""
        while True:
            await self._wanted.wait()
            async with contextlib.aclosing(
                self.log.follow(self._reader, self.cursor, self._block_ms, _report)
            ) as batches:
                async for batch in batches:
                    for logged in batch.events:
                        self._hand_out(logged)
                    self.cursor = batch.cursor
                    if not self._joined:
                        self._wanted.clear()
                        break

    def _hand_out(self, logged: LoggedEvent) -> None:
        if logged.project_id in self._joined:
            frame = _frame(logged)
            for stream in self._joined[logged.project_id]:
                stream.offer(frame)

    def _cut(self) -> None:
        for stream in self._open:
            stream.over.set()


class EventStream:
    """One client's events: what it missed, then what comes."""

    def __init__(
        self,
        feed: Feed,
        project_id: str,
        cursor: Cursor,
        still_allowed: Callable[[], Awaitable[bool]],
        *,
        heartbeat_period: float = HEARTBEAT_PERIOD,
    ) -> None:
        self.project_id = project_id
        self.over = asyncio.Event()
        """Set when nothing more is to be sent: all was, or the client must go, even if a send to it never returns."""
        self._feed = feed
        self._position = list(cursor)
        self._still_allowed = still_allowed
        self._heartbeat_period = heartbeat_period
        self._waiting: asyncio.Queue[Frame | None] = asyncio.Queue(MAX_WAITING)

    def offer(self, frame: Frame) -> None:
        """Take an event in, or drop the client: nothing here grows without bound."""
        try:
            self._waiting.put_nowait(frame)
        except asyncio.QueueFull:
            if not self.over.is_set():
                _log.warning("slow event stream dropped", project=self.project_id)
            self.over.set()

    def end(self) -> None:
        """End after what waits already."""
        try:
            self._waiting.put_nowait(None)
        except asyncio.QueueFull:
            self.over.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what to send, until the end."""
        yield self._mark("connected")
        try:
            async for chunk in self._missed():  # all but the last of it, without holding a place in the feed
                yield chunk
            self._feed.join(self, tuple(self._position))
            async for chunk in self._missed():  # what came up to the joining; it may come from the feed too
                yield chunk
        except REDIS_TROUBLE as error:
            _log.warning("event stream ended", error=type(error).__name__)
            return  # its client comes back with its last id
        loop = asyncio.get_running_loop()
        beat = loop.time() + self._heartbeat_period
        while True:
            if loop.time() >= beat:
                if not await self._still_allowed():
                    return
                beat = loop.time() + self._heartbeat_period
                yield self._heartbeat()
            try:
                async with asyncio.timeout_at(beat):
                    first = await self._waiting.get()
            except TimeoutError:
                continue
            chunk, is_last = self._take(first)
            if chunk:
                yield chunk
            if is_last:
                return

    async def _missed(self) -> AsyncIterator[bytes]:
        complete = False
        while not complete and not self._feed.draining:
            batch = await self._feed.log.read(self._feed.redis, tuple(self._position))
            complete = batch.complete
            frames = [_frame(logged).data for logged in batch.events if logged.project_id == self.project_id]
            self._position = list(batch.cursor)
            if frames:
                yield b"".join(frames)

    def _take(self, frame: Frame | None) -> tuple[bytes, bool]:
        """Return a first frame and all that wait behind it, and whether they are the last."""
        taken = []
        while frame is not None:
            if frame.entry_id > self._position[frame.partition]:  # else it was read before the joining
                self._position[frame.partition] = frame.entry_id
                taken.append(frame.data)
            if self._waiting.empty():
                return b"".join(taken), False
            frame = self._waiting.get_nowait()
        return b"".join(taken), True

    def _heartbeat(self) -> bytes:
        """Return a comment that moves the client's last id on, past the events of other projects."""
        if self._waiting.empty():
            self._position = [max(pair) for pair in zip(self._position, self._feed.cursor, strict=True)]
        return self._mark("heartbeat")

    def _mark(self, comment: str) -> bytes:
        # An id without data tells a client where to go on, and is no event (HTML Standard §9.2.6).
        cursor = encode_cursor(tuple(self._position))
        return ServerSentEventMessage(comment=comment, id=cursor, data=None).encode()


def _report(error: Exception | None) -> None:
    if error is None:
        _log.info("events go on")
    else:
        _log.warning("events interrupted", error=type(error).__name__)
