"""One client of two Redis servers, each of which serves a partition: to our code it looks like a cluster."""

import asyncio
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from runtime.redis.keys import TAGS

OF_PARTITION_1 = f":{{{TAGS[1]}}}:"


class TwoServers(Redis):
    """Sends a command that names a key of partition 1 to the second server, and every other one to the first."""

    def __init__(self, first: Redis, second: Redis) -> None:
        super().__init__(connection_pool=first.connection_pool)
        self.first = first
        self.second = second

    def server_of(self, words: tuple[Any, ...]) -> Redis:
        """Return the client of the server that gets a command."""
        names_it = any(OF_PARTITION_1 in word for word in words if isinstance(word, str))
        return self.second if names_it else self.first

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - redis-py's signature
        """Let the right server execute a command."""
        return await self.server_of(args).execute_command(*args, **options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:  # noqa: FBT001, FBT002 - redis-py's signature
        """Return a pipeline of both servers."""
        return _PipelineOfTwo(self, transaction=transaction, shard_hint=shard_hint)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - redis-py's signature
        """Close both clients."""
        await self.first.aclose(close_connection_pool)
        await self.second.aclose(close_connection_pool)


class _PipelineOfTwo(Pipeline):
    """Sends each server its own commands, both concurrently; returns when both have answered."""

    def __init__(self, client: TwoServers, *, transaction: bool, shard_hint: str | None) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, shard_hint)
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - redis-py's signature
        """Return the replies in the order of the commands."""
        commands, self.command_stack = list(self.command_stack), []
        replies: dict[int, Any] = {}

        async def execute_on(server: Redis) -> None:
            positions = [i for i, (words, _) in enumerate(commands) if self._client.server_of(words) is server]
            async with server.pipeline(self.is_transaction) as pipeline:
                for i in positions:
                    words, options = commands[i]
                    pipeline.execute_command(*words, **options)
                replies.update(zip(positions, await pipeline.execute(raise_on_error), strict=True))

        await asyncio.gather(execute_on(self._client.first), execute_on(self._client.second))
        return [replies[i] for i in range(len(commands))]
