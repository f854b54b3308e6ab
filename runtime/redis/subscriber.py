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
        loop = asyncio.get_running_loop()
        lost: asyncio.Future[Exception] = loop.create_future()

        def lose(error: Exception, _: Iterable[Sent]) -> None:
            lost.set_result(error)

        def pushed(push: list[Any]) -> None:
            if push[0] == b"message":
                heard(push[1], push[2])

        # The first of the periods passes before the PING.
        wire = await Wire.open(self._dial(), (SILENT_PERIODS - 1) * period, Events(lose, pushed=pushed))
        try:
            wire.write(packed(("SUBSCRIBE", *channels)))
            is_subscribed = False
            while True:
                pong: asyncio.Future[Any] = loop.create_future()
                wire.send(Sent(pong, _PING))
                await asyncio.wait((lost, pong), return_when=asyncio.FIRST_COMPLETED)
                if pong.done():
                    pong.result()  # raises the error of SUBSCRIBE: it has no reply, only messages, unless it is refused
                if lost.done():
                    raise lost.result()
                if not is_subscribed:
                    is_subscribed = True
                    subscribed()
                await asyncio.wait((lost,), timeout=period)
                if lost.done():
                    raise lost.result()
        finally:
            await wire.aclose()
