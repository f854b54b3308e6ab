"""One connection to Redis on which the commands of all tasks are under way at once.

A wire writes what was sent during a turn of the event loop with one system call, and gives each reply to the oldest
command without one: Redis answers in order. A wire that is lost is never used again; a `Line` replaces it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from hiredis import PushNotification, Reader
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError

TICKS = 4  # of a time-out; a command without a reply is noticed within five
WRITTEN_AT_ONCE = 32_768  # bytes; Redis runs a millisecond for so many, in which this process can do something else

_INCOMPLETE = object()


class Sent(NamedTuple):
    """A command that has no reply yet."""

    reply: "asyncio.Future[Any]"
    packed: bytes
    losses: int = 0
    """How many connections its line had lost when it was sent."""


class Events(NamedTuple):
    """What a wire calls, always from the event loop."""

    lost: Callable[[Exception, Iterable[Sent]], None]
    """The connection is lost, for this reason, before these commands were answered. Called once."""
    answered: Callable[[], None] = lambda: None
    """Some commands were answered."""
    pushed: Callable[[list[Any]], None] = lambda _: None
    """Redis sent something that answers no command. If this raises, the connection is dropped."""


class Wire(asyncio.Protocol):
    """A connection that redis-py has opened: it knows TLS, unix sockets, authentication and how to begin."""

    def __init__(self, writer: asyncio.StreamWriter, reply_within: float, events: Events) -> None:
        """Take over the transport of `writer`. A reply may take `reply_within` seconds."""
        self.unanswered: deque[Sent] = deque()
        self.size = 0
        """The number of bytes of the commands that have no reply yet."""
        self._writer = writer  # whose destructor would close the transport
        self._transport = writer.transport
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._reader = Reader(
            protocolError=InvalidResponse, replyError=DefaultParser.parse_error, notEnoughData=_INCOMPLETE
        )
        self._unwritten: list[bytes] = []
        self._unwritten_size = 0
        self._answered = 0
        self._is_lost = False
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._tick = reply_within / TICKS
        self._timer: asyncio.TimerHandle | None = None
        self._sent_by: deque[int] = deque(maxlen=TICKS)
        """How many commands had been sent at each of the last ticks."""
        self._transport.set_protocol(self)

    @classmethod
    async def open(cls, connection: AbstractConnection, reply_within: float, events: Events) -> "Wire":
        """Connect and take over the connection.

        Raises:
            RedisError: Redis cannot be reached, or it refuses.

        """
        try:
            await connection.connect()
        except asyncio.CancelledError:
            await connection.disconnect(nowait=True)  # redis-py leaves it open
            raise
        writer, connection._writer = connection._writer, None  # noqa: SLF001 - redis-py has no public way
        if writer is None or writer.transport.is_closing():
            message = "Connection closed by server."
            raise RedisConnectionError(message)
        return cls(writer, reply_within, events)

    def send(self, command: Sent) -> None:
        """Send a command. Its reply, or Redis' error, resolves its future, unless that was cancelled."""
        self.unanswered.append(command)
        self.size += len(command.packed)
        self.write(command.packed)
        if self._timer is None:
            self._timer = self._loop.call_later(self._tick, self._look_at_the_oldest)

    def write(self, packed: bytes) -> None:
        """Send a command to which there is no reply, at the end of this turn of the loop or when many have come."""
        if not self._unwritten:
            self._loop.call_soon(self._write)
        self._unwritten.append(packed)
        self._unwritten_size += len(packed)
        if self._unwritten_size >= WRITTEN_AT_ONCE:
            self._write()

    def drop(self, error: Exception) -> None:
        """Close the connection at once; it is lost for this reason."""
        self._transport.abort()
        self._lose(error)

    async def aclose(self) -> None:
        """Close the connection at once; return when it is closed."""
        self.drop(RedisConnectionError("closed"))
        await self._closed

    def data_received(self, data: bytes) -> None:
        """Give each reply to its command."""
        if self._is_lost:
            return
        answered = size = 0
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                if type(reply) is PushNotification:
                    self._events.pushed(reply)
                    continue
                if isinstance(reply, RedisConnectionError):  # LOADING: it would answer the same to every command
                    self.drop(reply)
                    break
                if not self.unanswered:
                    self.drop(InvalidResponse("a reply to no command"))
                    break
                future, packed, _ = self.unanswered.popleft()
                answered += 1
                size += len(packed)
                if future.done():
                    continue  # its caller was cancelled
                if isinstance(reply, Exception):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)
        except Exception as error:  # noqa: BLE001 - whatever it is, the replies that follow have no owners
            self.drop(error)
        self._answered += answered
        self.size -= size
        self._events.answered()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that the connection is lost, unless it was dropped."""
        self._lose(RedisConnectionError("Connection closed by server." if exc is None else f"Connection lost: {exc}"))
        self._closed.set_result(None)

    def _lose(self, error: Exception) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        if self._timer is not None:
            self._timer.cancel()
        self._events.lost(error, self.unanswered)

    def _write(self) -> None:
        if not self._unwritten:
            return  # it was written when many had come
        packed = self._unwritten[0] if len(self._unwritten) == 1 else b"".join(self._unwritten)
        self._unwritten.clear()
        self._unwritten_size = 0
        if not self._is_lost:
            self._transport.write(packed)

    def _look_at_the_oldest(self) -> None:
        """Drop the connection if the oldest command has waited for all of the last ticks.

        It counts ticks, not seconds: if this process was the one that stood still, Redis gets the time to answer.
        """
        self._timer = None
        if len(self._sent_by) == TICKS and self._sent_by[0] > self._answered:
            message = f"no reply within {self._tick * TICKS:g} s"
            self.drop(RedisTimeoutError(message))
        elif self.unanswered:
            self._sent_by.append(self._answered + len(self.unanswered))
            self._timer = self._loop.call_later(self._tick, self._look_at_the_oldest)
        else:
            self._sent_by.clear()
