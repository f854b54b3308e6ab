"""Listens to channels on a connection of its own, and notices if that has become silent."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from redis.asyncio.connection import AbstractConnection

from runtime.redis.line import packed
from runtime.redis.wire import Events, Sent, Wire

SILENT_PERIODS = 3  # a connection on which no PING is answered for so many periods is half open

_PING = packed(("PING",))


class Subscriber:
    """Gives every message of some channels to a function."""

    def __init__(self, dial: Callable[[], AbstractConnection]) -> None:
        """`dial` returns a connection that is not open yet."""
        self._dial = dial

    async def listen(
        self,
        channels: Iterable[bytes],
        heard: Callable[[bytes, bytes], None],
        subscribed: Callable[[], None],
        *,
        period: float,
    ) -> NoReturn:
        """Subscribe, and call `heard` with the channel and the content of each message until the connection is lost.

        `subscribed` is called once, when every channel is subscribed. There is a PING each `period` seconds.

        Raises:
            RedisError: Redis cannot be reached, refuses, or has been silent for `SILENT_PERIODS`.
            Exception: what `heard` raises.

        """
        lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        def lose(error: Exception, _: Iterable[Sent]) -> None:
            lost.set_result(error)

        def pushed(push: list[Any]) -> None:
            if push[0] == b"message":
                heard(push[1], push[2])

        # The first of the periods passes before the PING.
        wire = await Wire.open(self._dial(), (SILENT_PERIODS - 1) * period, Events(lose, pushed=pushed))
        try:
            wire.write(packed(("SUBSCRIBE", *channels)))
            await _probe(wire, lost)
            subscribed()
            while True:
                await asyncio.wait((lost,), timeout=period)
                await _probe(wire, lost)
        finally:
            await wire.aclose()


async def _probe(wire: Wire, lost: "asyncio.Future[Exception]") -> None:
    """Return when Redis has answered a PING. By then it has done everything that was sent before.

    Raises:
        RedisError: what it was lost for, or an answer to SUBSCRIBE, which has no reply of its own unless it is refused.

    """
    pong: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    wire.send(Sent(pong, _PING))
    await asyncio.wait((lost, pong), return_when=asyncio.FIRST_COMPLETED)
    if not pong.done():
        raise lost.result()
    pong.result()
