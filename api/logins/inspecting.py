"""Looking at a login by its code, before anything is done to it: whether it can be completed, and who asks for it."""

from typing import NamedTuple

from redis.asyncio import Redis

from api.logins.guard import Asker, Guard
from api.logins.refusals import NotPending, WrongLoginCode
from api.request.note import note_session
from runtime.codes import normalise_login_code
from runtime.redis.keys import Keys
from statemachine.lifecycle import Outcome, Trigger
from statemachine.machine import decide
from statemachine.session import ClientFacts, Flow
from statemachine.store.inspection import read_facts
from statemachine.store.reading import LoginCodeHolder, Sessions


class Asking(NamedTuple):
    """Who asks to be logged in, for the page where a person decides. Times are milliseconds since the epoch."""

    session_id: str
    client: ClientFacts
    """What the tool says of itself. Unverified."""
    address: str | None
    """Where the tool's request came from; None if that is not known."""
    initiated_at: int
    expires_at: int
    flow: Flow
    scope: str | None
    """What an OAuth client asks for."""
    is_anonymous: bool
    """Whether the tool already has a session, of an anonymous subject."""


class Inspecting:
    """Looks at sessions that could be completed now. Nothing is changed."""

    def __init__(self, store: Sessions, redis: Redis, guard: Guard, keys: Keys) -> None:
        self._store = store
        self._redis = redis
        self._guard = guard
        self._keys = keys

    async def check(self, asker: Asker, login_code: str) -> LoginCodeHolder:
        """Return the session that a login code names, if it could be completed now.

        Raises:
            WrongLoginCode: it names no session.
            TooManyWrongCodes: the same, and a budget is used up.
            NotPending: its session cannot be completed any more.

        """
        code = normalise_login_code(login_code)
        holder = (await self._store.find_by_login_code(asker.project.id, code))[0] if code else None
        read = await self._store.read(holder.session_id) if holder else None
        if holder is None or read is None:
            raise await self._guard.wrong_code(asker, WrongLoginCode())
        note_session(read.session.id)
        if decide(read.session, Trigger.COMPLETE, read.now).outcome is not Outcome.COMPLETED:
            raise NotPending
        return holder

    async def inspect(self, asker: Asker, login_code: str) -> Asking:
        """Return what is known of the tool whose session a login code names; raises as `check` does."""
        session_id, _, _, anonymous_family = await self.check(asker, login_code)
        facts = await read_facts(self._redis, self._keys, session_id)
        if facts is None:  # forgotten between two reads
            raise NotPending
        return Asking(
            session_id,
            facts.client,
            facts.address,
            facts.created_at,
            facts.expires_at,
            facts.flow,
            facts.scope,
            is_anonymous=anonymous_family is not None,
        )
