"""The loop that reads new entries and has them decided."""

import structlog
from redis.asyncio import Redis

from statemachine.store.command_stream import CommandStream
from worker.handlers import Handlers

COUNT = 64  # entries a read; one pipeline of their scripts then holds Redis for about a millisecond

_log = structlog.get_logger("worker")


class Consumer:
    """Reads entries nobody has read (XREADGROUP `>`) on a connection of its own."""

    def __init__(self, stream: CommandStream, handlers: Handlers, reader: Redis, name: str, block_ms: int) -> None:
        self._stream = stream
        self._handlers = handlers
        self._reader = reader
        self._name = name
        self._block_ms = block_ms
        self._client_id: int | None = None

    async def step(self) -> None:
        """Read one batch, waiting for it if need be, and decide it."""
        if self._client_id is None:
            self._client_id = int(await self._reader.client_id())
        try:
            entries = await self._stream.read(self._reader, self._name, COUNT, self._block_ms)
        except BaseException:
            self._client_id = None  # the connection may be a new one after this
            raise
        if not entries:
            return
        for failure in await self._handlers.handle(entries):
            _log.warning("entry left pending", entry=failure.entry.id, reason=failure.reason)

    async def unblock(self, redis: Redis) -> None:
        """End a blocking read now (CLIENT UNBLOCK): cancelling it could lose entries that are on their way."""
        if self._client_id is not None:
            await redis.client_unblock(self._client_id)
