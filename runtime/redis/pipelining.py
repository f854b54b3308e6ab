"""A Redis client that sends the commands of concurrent tasks together: one write and one read for all of them.

Sending, waking up and checking out a connection cost a Python process more than the command itself. While
`ROUND_TRIPS` are under way, further commands wait and share the next round trip. An idle client sends at once.
"""

import asyncio
import math
from functools import partial
from typing import Any, NamedTuple, cast

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import DataError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

ROUND_TRIPS = 4  # under way at once; with one, a process has nothing to do while it waits for Redis
MAX_TOGETHER = 256  # commands a round trip; scripts take some 20 µs each, so Redis is held for a few milliseconds


class _Asked(NamedTuple):
    command: tuple[Any, ...]
    options: dict[str, Any]
    reply: "asyncio.Future[Any]"


class PipeliningRedis(Redis):
    """Shares round trips. Not for blocking commands: all others would wait behind them."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - redis-py's
        super().__init__(**options)
        self._asked: list[_Asked] = []
        self._senders: set[asyncio.Task[None]] = set()

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - redis-py's
        """Send a command together with those of other tasks; return its own reply or raise its own error."""
        asked = _Asked(args, options, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        if len(self._senders) < ROUND_TRIPS:
            self._senders.add(asyncio.create_task(self._send()))
        return await asked.reply

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - redis-py's
        """Wait for the round trips that are under way, then close."""
        await asyncio.gather(*self._senders)
        await super().aclose(close_connection_pool)

    async def _send(self) -> None:
        together: list[_Asked] = []
        try:
            while self._asked:
                together, self._asked = self._asked[:MAX_TOGETHER], self._asked[MAX_TOGETHER:]
                for asked, reply in zip(together, await self._round_trip(together), strict=True):
                    if asked.reply.done():
                        continue  # its caller was cancelled
                    if isinstance(reply, Exception):
                        asked.reply.set_exception(reply)
                    else:
                        asked.reply.set_result(reply)
        finally:
            self._senders.discard(cast("asyncio.Task[None]", asyncio.current_task()))
            # Only if this task was cancelled, at the end of the process: its callers must not wait for ever.
            for asked in (*together, *self._asked):
                asked.reply.cancel()
            self._asked = []

    async def _round_trip(self, together: list[_Asked]) -> list[Any]:
        """Return a reply or an error for each command."""
        try:
            connection = await self.connection_pool.get_connection()
            try:
                replies = await connection.retry.call_with_retry(
                    partial(_exchange, connection, [asked.command for asked in together]),
                    lambda _: connection.disconnect(),
                )
            finally:
                await self.connection_pool.release(connection)
        except (DataError, UnicodeError) as error:  # a command that cannot be encoded; nothing was sent
            if len(together) == 1:
                return [error]
            return [(await self._round_trip([asked]))[0] for asked in together]
        except Exception as error:  # noqa: BLE001 - each caller receives it, whatever it is
            return [error] * len(together)
        return [self._parsed(asked, reply) for asked, reply in zip(together, replies, strict=True)]

    def _parsed(self, asked: _Asked, reply: Any) -> Any:  # noqa: ANN401 - redis-py's
        """Return a reply in redis-py's form for its command, or the error if the reply is one."""
        parse = self.response_callbacks.get(asked.command[0])
        if parse is None or isinstance(reply, Exception):
            return reply
        try:
            return parse(reply, **{name: value for name, value in asked.options.items() if name != "keys"})
        except Exception as error:  # noqa: BLE001 - as above
            return error


async def _exchange(connection: AbstractConnection, commands: list[tuple[Any, ...]]) -> list[Any]:
    """Send commands and return their replies. The reply of a command that failed is its error.

    There is one time-out for all of them. redis-py would set one for each reply, which takes longer than reading it.
    """
    await connection.send_packed_command(connection.pack_commands(commands))
    replies: list[Any] = []
    try:
        async with asyncio.timeout(connection.socket_timeout):
            while len(replies) < len(commands):
                try:
                    replies.append(await connection.read_response(timeout=math.inf))
                except ResponseError as error:
                    replies.append(error)
    except TimeoutError:
        message = f"no reply within {connection.socket_timeout} s"
        raise RedisTimeoutError(message) from None
    return replies
