"""A minimal HTTP/1.1 client: one request at a time on a connection that stays open.

It is for flows that `wrk` cannot do, where a request depends on the answer before it.
"""

import asyncio
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from litestar.status_codes import HTTP_400_BAD_REQUEST

INITIATE = "/api/v1/auth/cli"
POLL = "/api/v1/auth/cli/poll"
COMPLETE = "/api/v1/auth/cli/complete"


class Response(NamedTuple):
    """An answer."""

    status: int
    body: bytes
    head: bytes

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the body.

        Raises:
            RuntimeError: the answer is an error; the figures would mean nothing.

        """
        if self.status >= HTTP_400_BAD_REQUEST:
            message = f"answered {self.status}: {self.body.decode(errors='replace')}"
            raise RuntimeError(message)
        fields: dict[str, Any] = json.loads(self.body)
        return fields


class Connection:
    """A connection to a server on loopback; an asynchronous context manager."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        """Connect, and return this connection."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connection."""
        self._writer.close()

    async def post(self, path: str, headers: Mapping[str, str], body: Mapping[str, str]) -> Response:
        """Send a request and return its answer."""
        self.send(path, headers, body)
        return await self.receive()

    def send(self, path: str, headers: Mapping[str, str], body: Mapping[str, str]) -> None:
        """Send a request without waiting for its answer."""
        self.write("POST", path, headers, json.dumps(body))

    def write(self, method: str, path: str, headers: Mapping[str, str], content: str) -> None:
        """Send a request of any kind without waiting for its answer."""
        lines = [f"{method} {path} HTTP/1.1", f"host: 127.0.0.1:{self._port}", f"content-length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n" + content).encode())

    async def receive(self) -> Response:
        """Return the answer to the request that was sent."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return Response(int(head[9:12]), await self._reader.readexactly(length), head)
