"""Receives request bodies within limits: the size of each, and the memory of all that are incomplete.

If an answer is sent before the whole body has arrived, the server closes the connection. A client that does not know
would send its next request into it, so such an answer must have the header `connection: close`.
"""

import asyncio
import contextlib

from litestar.types import Receive

from api.request.headers import Headers
from api.request.refusals import TooLarge, TooMuchAtOnce, Unreadable

MAX_BODY_BYTES = 65_536
MAX_DISCARDED_BYTES = 4_096  # of a request that was refused by its head; no tool sends a larger body
DISCARD_PATIENCE = 1.0  # seconds; an honest client sends the body right after the head
MAX_BYTES_AT_ONCE = 16_777_216  # of incomplete bodies; 256 of the largest


class Incoming:
    """The bodies that a process is receiving."""

    def __init__(self, most: int = MAX_BYTES_AT_ONCE) -> None:
        self._most = most
        self._held = 0
        """Bytes of incomplete bodies."""

    async def receive(self, receive: Receive, headers: Headers) -> tuple[bytes, bool]:
        """Return a whole body, and whether the message that ends it was received too.

        The server ends a body with an empty message. Once the announced length has arrived, that message is not read:
        reading it would cost a pending poll a tenth of its time.

        Raises:
            TooLarge: the body is larger than `MAX_BODY_BYTES`.
            TooMuchAtOnce: all incomplete bodies together take too much memory. A body that arrives in one piece, as
                small ones do, is never refused because of the others.
            Unreadable: the client left before it had sent the whole body.

        """
        announced = _announced(headers)
        if announced > MAX_BODY_BYTES:
            raise TooLarge
        body, held = b"", 0
        try:
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Unreadable("The request body is not complete.")
                body += message["body"]
                if len(body) > MAX_BODY_BYTES:
                    raise TooLarge
                if not message.get("more_body"):
                    return body, True
                if len(body) == announced:
                    return body, False
                self._held += len(body) - held
                held = len(body)
                if self._held > self._most:
                    raise TooMuchAtOnce
        finally:
            self._held -= held


async def discard(receive: Receive, headers: Headers) -> bool:
    """Receive and discard a body that no endpoint reads, if it is small and arrives soon.

    Returns whether its end was received.
    """
    left = MAX_DISCARDED_BYTES
    if _announced(headers) > left:
        return False
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_PATIENCE):
            while left >= 0:
                message = await receive()
                if message["type"] != "http.request":
                    return False
                left -= len(message["body"])
                if not message.get("more_body"):
                    return True
    return False


def _announced(headers: Headers) -> int:
    """Return the length that the head announces; -1 if it announces none."""
    length = headers.get(b"content-length", b"")
    return int(length) if length.isdigit() else -1
