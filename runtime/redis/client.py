"""redis-py's client on lines: its commands and the form of its replies, without a connection for each caller.

Only transactions and redis-py's pub/sub still take connections of a pool.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError

from runtime.redis.line import Line


class LineRedis(Redis):
    """Sends the commands of all tasks on one line. Not for blocking commands: all others would wait behind them."""

    def __init__(self, line: Line, pool: BlockingConnectionPool) -> None:
        """`pool` is for transactions."""
        super().__init__(connection_pool=pool)
        self.auto_close_connection_pool = True
        self._line = line
        # Names are in upper case, redis-py's and ours; its own dictionary folds their case at every look-up.
        self._parsers: dict[Any, Any] = dict(self.response_callbacks)

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - redis-py's
        """Send a command; return its reply in redis-py's form or raise its error."""
        if self._line.is_full:
            await self._line.room()
        return self._parsed(args, options, await self._line.send(args))

    async def execute_together(self, commands: Sequence[tuple[tuple[Any, ...], Mapping[str, Any]]]) -> list[Any]:
        """Send commands in order; return the reply or the error of each."""
        if self._line.is_full:
            await self._line.room()
        replies = [self._line.send(words) for words, _ in commands]
        results: list[Any] = []
        try:
            for (words, options), reply in zip(commands, replies, strict=True):
                try:
                    results.append(self._parsed(words, options, await reply))
                except Exception as error:  # noqa: BLE001 - the caller receives it, whatever it is
                    results.append(error)
        finally:
            for reply in replies[len(results) :]:
                reply.cancel()  # the caller was cancelled
        return results

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:  # noqa: FBT001, FBT002 - redis-py's
        """Return a pipeline: a transaction on a connection of its own, or else commands that are sent together."""
        if transaction:
            return super().pipeline(transaction, shard_hint)
        return _Together(self)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - redis-py's
        """Wait for the replies that are under way, then close."""
        await self._line.aclose()
        await super().aclose(close_connection_pool)

    def _parsed(self, words: tuple[Any, ...], options: Mapping[str, Any], reply: Any) -> Any:  # noqa: ANN401 - redis-py's
        parse = self._parsers.get(words[0])
        if parse is None:
            return reply
        return parse(reply, **{name: value for name, value in options.items() if name != "keys"})


class BlockingRedis(LineRedis):
    """Sends the blocking reads of one loop. A read that is cancelled ends in Redis too, with its connection."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - redis-py's
        """Send a command; return its reply in redis-py's form or raise its error."""
        try:
            return await super().execute_command(*args, **options)
        except asyncio.CancelledError:
            self._line.drop(RedisConnectionError("a read was cancelled"))
            raise


class _Together(Pipeline):
    """Commands that are sent in one go, on the line of their client."""

    def __init__(self, client: LineRedis) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction=False, shard_hint=None)
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - redis-py's
        """Return the replies in the order of the commands; an error stands for its reply, or is raised."""
        commands, self.command_stack = self.command_stack, []
        replies = await self._client.execute_together(commands)
        if raise_on_error:
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies
