"""What an operator may see of a session: everything that is stored, except digests, keys and sealed bytes."""

import msgspec
from redis.asyncio import Redis

from runtime.redis.keys import Keys
from statemachine.lifecycle import State
from statemachine.session import ClientFacts, Flow


class SessionFacts(msgspec.Struct, frozen=True):
    """A session as it is stored. Times are milliseconds since the epoch, Redis time."""

    session_id: str
    project_id: str
    state: State
    version: int
    created_at: int
    expires_at: int
    deadline: int
    changed_at: dict[State, int]
    """The times when it entered the states after pending."""
    forgotten_at: int
    """The time when its key expires."""
    login_subject: str | None
    """Who the login is for, as the backend named them."""
    client: ClientFacts
    address: str | None = None
    """The address of its tool's request; None if it is not known."""
    flow: Flow = Flow.CLI
    client_id: str | None = None
    """The OAuth client that began it."""
    scope: str | None = None
    """What that client asked for."""


_NEEDED = ("project_id", "state", "version", "created_at", "expires_at", "deadline", "client")
_OPTIONAL = ("login_subject", "address", "scope", "client_id")
_LATER = [state for state in State if state is not State.PENDING]


async def read_facts(redis: Redis, keys: Keys, session_id: str) -> SessionFacts | None:
    """Return a session; None if it does not exist, or no longer."""
    key = keys.session(session_id)
    names = (*_NEEDED, *_OPTIONAL, *(f"{state}_at" for state in _LATER))
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.execute_command("HMGET", key, *names)
        pipeline.execute_command("PEXPIRETIME", key)
        values, forgotten_at = await pipeline.execute()
    if values[0] is None:
        return None
    found = {name: value.decode() for name, value in zip(names, values, strict=True) if value is not None}
    return msgspec.convert(
        {
            **found,
            "session_id": session_id,
            "login_subject": found.get("login_subject"),
            # Only the sessions of OAuth clients have a scope, and a client that is not the project itself has a name.
            **(
                {"flow": Flow.DEVICE, "client_id": found.get("client_id", found["project_id"])}
                if "scope" in found
                else {}
            ),
            "client": msgspec.json.decode(found["client"]),
            "changed_at": {state: found[f"{state}_at"] for state in _LATER if f"{state}_at" in found},
            "forgotten_at": forgotten_at,
        },
        SessionFacts,
        strict=False,
    )
