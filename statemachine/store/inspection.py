"""What an operator may see of a session: all that is stored of it but digests, keys and sealed bytes."""

import msgspec
from redis.asyncio import Redis

from runtime.redis.keys import Keys
from statemachine.lifecycle import State
from statemachine.session import ClientFacts


class SessionFacts(msgspec.Struct, frozen=True):
    """A session as it is stored. Times are milliseconds since the epoch, Redis time."""

    session_id: str
    project_id: str
    state: State
    version: int
    created_at: int
    expires_at: int
    deadline: int
    completed_at: int | None
    consumed_at: int | None
    expired_at: int | None
    forgotten_at: int
    """When its key ends."""
    login_subject: str | None
    """Who it is for, as the backend said."""
    client: ClientFacts


_NEEDED = ("project_id", "state", "version", "created_at", "expires_at", "deadline", "client")
_OPTIONAL = ("completed_at", "consumed_at", "expired_at", "login_subject")


async def read_facts(redis: Redis, keys: Keys, session_id: str) -> SessionFacts | None:
    """Read a session; None if there is none, or no longer."""
    key = keys.session(session_id)
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.execute_command("HMGET", key, *_NEEDED, *_OPTIONAL)
        pipeline.execute_command("PEXPIRETIME", key)
        values, forgotten_at = await pipeline.execute()
    if values[0] is None:
        return None
    found = dict(zip((*_NEEDED, *_OPTIONAL), values, strict=True))
    found["client"] = msgspec.json.decode(found["client"])
    return msgspec.convert(
        {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}
        | {"session_id": session_id, "forgotten_at": forgotten_at},
        SessionFacts,
        strict=False,
    )
