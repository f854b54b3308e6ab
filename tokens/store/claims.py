"""Keeps what may be claimed while a session is pending. The commit of the session's next state deletes it."""

from redis.asyncio import Redis

from runtime.redis.keys import Keys


class Claims:
    """The sealed refresh tokens of anonymous subjects, by the sessions that their tools began."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def put(self, session_id: str, sealed: bytes, expires_at: int) -> None:
        """Keep one until `expires_at` (milliseconds since the epoch), when its session ends at the latest.

        Raises:
            OutOfMemoryError: Redis is at its maxmemory; nothing was written.

        """
        await self._redis.execute_command("SET", self._keys.claimable(session_id), sealed, "PXAT", expires_at)

    async def read(self, session_id: str) -> bytes | None:
        """Return what may be claimed; None if nothing may, or no longer."""
        sealed: bytes | None = await self._redis.execute_command("GET", self._keys.claimable(session_id))
        return sealed

    async def take(self, session_id: str) -> bool:
        """Delete it; return whether it was still there: only one of several claims is told so."""
        return bool(await self._redis.execute_command("DEL", self._keys.claimable(session_id)))
