"""One reader of the event log per process, for the streams of all its clients."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

import msgspec
import structlog
from litestar.response import ServerSentEventMessage
from redis.asyncio import Redis

from api.event_stream.catching_up import PER_SECOND, CatchUps
from api.event_stream.refusals import CursorNotOurs, EventsGone, TooManyStreams
from events.cursor import Cursor, decode_cursor, encode_cursor
from events.log import EventLog, LoggedEvent
from runtime.loops import keep_running

MAX_WAITING = 4_096  # events that wait for one slow client: four reads' worth, two megabytes
MAX_STREAMS = 100  # of one project in a process, which takes 16 384 connections; a backend needs one
ROOM_AFTER = 15  # seconds; a stream whose client has left is noticed by then, at its next heartbeat
DRAIN_GRACE = 1.0  # seconds for streams to end by themselves; then those that are not read are cut

_log = structlog.get_logger("api")


class Frame(NamedTuple):
    """An event, and as clients receive it."""

    logged: LoggedEvent
    data: bytes


def encode_frame(logged: LoggedEvent) -> Frame:
    """Return an event as a frame: a Server-Sent Event (HTML Standard §9.2)."""
    message = ServerSentEventMessage(
        data=msgspec.json.encode(logged.event), event=logged.event.type, id=encode_cursor(logged.cursor)
    )
    return Frame(logged, message.encode())


class Inbox:
    """What the feed has for one stream, and the stream has not sent yet: `MAX_WAITING` events at most."""

    def __init__(self, project_id: str) -> None:
        self.project_id = project_id
        self.waiting: asyncio.Queue[Frame | None] = asyncio.Queue(MAX_WAITING)
        """None ends the stream."""
        self.over = asyncio.Event()
        """Set when nothing more is to be sent: all was, or the client is dropped, even in a send that never returns."""

    def offer(self, frame: Frame) -> None:
        """Take an event in; when there is no room for it, drop the client."""
        try:
            self.waiting.put_nowait(frame)
        except asyncio.QueueFull:
            if not self.over.is_set():
                _log.warning("slow event stream dropped", project=self.project_id)
            self.over.set()

    def end(self) -> None:
        """End the stream after what waits already."""
        try:
            self.waiting.put_nowait(None)
        except asyncio.QueueFull:
            self.over.set()


class Feed:
    """Reads the log once for all streams of this process, while any has joined."""

    def __init__(
        self, log: EventLog, redis: Redis, reader: Redis, block_ms: int, *, missed_per_second: float = PER_SECOND
    ) -> None:
        self.catch_ups = CatchUps(log, redis, per_second=missed_per_second)
        self.draining = False
        self.cursor: Cursor = ()
        """Up to here every stream that has joined was offered its project's events."""
        self._log = log
        self._redis = redis
        self._reader = reader
        self._block_ms = block_ms
        self._open: set[Inbox] = set()
        self._joined: dict[str, set[Inbox]] = defaultdict(set)
        """By project id."""
        self._wanted = asyncio.Event()

    async def start(self, project_id: str, last_event_id: bytes | None) -> Cursor:
        """Return where a stream begins: after the event that its client received last, or else now.

        Raises:
            CursorNotOurs: no relay with as many partitions gave this id.
            EventsGone: events after it have been trimmed.
            TooManyStreams: the project has `MAX_STREAMS` open already.

        """
        cursor = await self._start(last_event_id)
        if sum(inbox.project_id == project_id for inbox in self._open) >= MAX_STREAMS:
            raise TooManyStreams(ROOM_AFTER)
        return cursor

    async def _start(self, last_event_id: bytes | None) -> Cursor:
        if not last_event_id:
            return await self._log.end(self._redis)
        cursor = decode_cursor(last_event_id.decode("latin-1"), self._log.partitions)
        if cursor is None:
            raise CursorNotOurs
        if not await self._log.has_all_after(self._redis, cursor):
            raise EventsGone
        return cursor

    @contextlib.contextmanager
    def opened(self, inbox: Inbox) -> Iterator[None]:
        """Register a stream for the duration of the context."""
        self._open.add(inbox)
        if self.draining:
            inbox.end()
        try:
            yield
        finally:
            self._open.discard(inbox)
            joined = self._joined[inbox.project_id]
            joined.discard(inbox)
            if not joined:
                del self._joined[inbox.project_id]

    def join(self, inbox: Inbox, cursor: Cursor) -> None:
        """Offer an open stream its project's events after a cursor, or after an older one."""
        self._joined[inbox.project_id].add(inbox)
        if not self._wanted.is_set():
            self.cursor = cursor
            self._wanted.set()

    def drain(self) -> None:
        """End all streams now."""
        self.draining = True
        for inbox in self._open:
            inbox.end()
        asyncio.get_running_loop().call_later(DRAIN_GRACE, self._cut)

    async def run(self) -> None:
        """Read and hand out until cancelled."""
        await keep_running("feed", self._follow)

    async def _follow(self) -> NoReturn:
        """Read from `cursor` on, also when begun again."""
        while True:
            await self._wanted.wait()
            async with contextlib.aclosing(
                self._log.follow(self._reader, self.cursor, self._block_ms, _report, projects=self._joined)
            ) as batches:
                async for batch in batches:
                    for logged in batch.events:
                        self._hand_out(logged)
                    self.cursor = batch.cursor
                    if not self._joined:
                        self._wanted.clear()
                        break

    def _hand_out(self, logged: LoggedEvent) -> None:
        frame = encode_frame(logged)
        for inbox in self._joined[logged.project_id]:
            inbox.offer(frame)

    def _cut(self) -> None:
        for inbox in self._open:
            inbox.over.set()


def _report(error: Exception | None) -> None:
    if error is None:
        _log.info("events go on")
    else:
        _log.warning("events interrupted", error=type(error).__name__)
