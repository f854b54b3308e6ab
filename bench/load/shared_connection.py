"""One connection to Redis for all tasks of a process, which pipelines by itself.

It is the cheapest that works: no reconnecting, no time-outs. It is the benchmarks' own, so that a floor that uses it
does not move when the relay's client changes.
"""

import asyncio
from collections import deque
from typing import Any, Self, cast
from urllib.parse import urlsplit

import hiredis


class SharedConnection(asyncio.Protocol):
    """Sends each command at once. The event loop writes those of one turn together; replies come in their order."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect to the server of a URL and return the connection."""
        server = urlsplit(url)
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, server.hostname or "127.0.0.1", server.port or 6379)
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def execute(self, *command: str | bytes | float) -> "asyncio.Future[Any]":
        """Send a command and return a future of its reply."""
        reply = self._loop.create_future()
        self._waiting.append(reply)
        self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub knows tuples of one only
        return reply

    def data_received(self, data: bytes) -> None:
        """Give each reply that has arrived to its future."""
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            waiting = self._waiting.popleft()
            if waiting.done():
                continue  # its task was cancelled
            if isinstance(reply, Exception):
                waiting.set_exception(reply)
            else:
                waiting.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the commands that have no reply."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(exc or ConnectionError("closed"))

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()
