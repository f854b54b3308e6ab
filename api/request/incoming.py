"""Receiving request bodies: how large, in what time, and how much of them all a process holds at once.

The server closes a connection on which an answer overtook the body, and a client that is not told would send its next
request into it: such an answer must say `connection: close`.
"""

import asyncio
import contextlib

from litestar.types import Receive

from api.request.headers import Headers
from api.request.refusals import TooLarge, TooMuchAtOnce, Unreadable

MAX_BODY_BYTES = 65_536
MAX_DISCARDED_BYTES = 4_096  # of a request that was refused by its head: as large as any that a tool sends
DISCARD_PATIENCE = 1.0  # seconds; what an honest client sends is on its way with its head
MAX_BYTES_AT_ONCE = 16_777_216  # in bodies that are not complete; 256 of the largest


class Incoming:
    """The bodies that a process is receiving."""

    def __init__(self, most: int = MAX_BYTES_AT_ONCE) -> None:
        self._most = most
        self._held = 0
        """Bytes of bodies that are not complete."""

    async def receive(self, receive: Receive, headers: Headers) -> tuple[bytes, bool]:
        """Return a whole body, and whether the message that ends it was received too.

        The server ends a body with an empty message. Where the announced length has come there is no need to ask for
        it, which would cost a pending poll a tenth of its time.

        Raises:
            TooLarge: it is larger than `MAX_BODY_BYTES`.
            TooMuchAtOnce: the bodies that are not complete take too much together. One that comes in a single piece, as
                small ones do, is never refused for the others.
            Unreadable: the client left before it had sent it all.

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
    """Receive a body that nobody will read, if it is small and on its way, and keep none of it.

    Returns whether it came to its end.
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
    """Return the length that the head announces, -1 if it does not."""
    length = headers.get(b"content-length", b"")
    return int(length) if length.isdigit() else -1
