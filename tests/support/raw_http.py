"""HTTP/1.1 on plain sockets, for tests that send many requests at once."""

import asyncio
import json
import re
from typing import NamedTuple, cast

_CONTENT_LENGTH = re.compile(rb"(?i)\ncontent-length: *(\d+)")


class Answer(NamedTuple):
    """The answer to one request."""

    status: int
    body: str


class Connection(asyncio.Protocol):
    """A keep-alive connection. Kept simple: a client library would need as much time as both APIs together."""

    def __init__(self) -> None:
        self._transport = asyncio.Transport()
        self._received = b""
        self._answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    @classmethod
    async def to(cls, url: str) -> "Connection":
        """Open one."""
        host, port = url.removeprefix("http://").split(":")
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, int(port))
        return connection

    async def send(self, request: bytes) -> Answer:
        """Send one request; return its answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close it."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer, or all of it."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if end and len(body) == int(_CONTENT_LENGTH.findall(head)[0]):
            self._received = b""
            self._answer.set_result(Answer(int(head[9:12]), body.decode()))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request that waits."""
        if not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError())


def request(path: str, headers: dict[str, str], body: dict[str, str]) -> bytes:
    """Return a request as it goes over the wire."""
    content = json.dumps(body)
    fields = {**headers, "host": "relay", "content-type": "application/json", "content-length": str(len(content))}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST /api/v1/auth/cli{path} HTTP/1.1\r\n{head}\r\n{content}".encode()
