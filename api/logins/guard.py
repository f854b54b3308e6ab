"""What becomes of wrong codes, hurried polls and sessions beyond a budget: a 429, and an audit event."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from litestar import Request

from api.request.address import UNKNOWN, client_address, counted_as
from api.stack.access import Caller, key_name
from api.stack.errors import (
    TOO_MANY_SESSIONS,
    TOO_MANY_WRONG_CODES,
    TOO_SOON,
    KnownError,
    PlainError,
)
from projects.audit import Refusals
from projects.audit_events import (
    MAX_USER_AGENT,
    BindingFailed,
    GuessRefused,
    InitiationRefused,
    PollThrottled,
)
from projects.budgets import Guesses
from projects.errors import InitiationRefusedError
from runtime.settings import Network


class WrongCodeError(Exception):
    """A code names no session of the project, or its poller cannot prove that it is the one who asked for it."""

    def __init__(
        self, code: Literal["login", "polling"], answer: KnownError | PlainError, *, unbound: str | None = None
    ) -> None:
        super().__init__(code)
        self.code = code
        self.answer = answer
        """What it is answered with, within the budgets."""
        self.unbound = unbound
        """The session, if its polling code was right and only the proof was not."""


class PollTooSoonError(Exception):
    """A pending session was polled before its interval was over."""

    def __init__(self, session_id: str, now: int, wait_ms: int) -> None:
        super().__init__(session_id)
        self.session_id = session_id
        self.now = now
        self.wait_ms = wait_ms


class _Visitor(NamedTuple):
    counted_as: str
    address: str
    user_agent: str | None


class Guard:
    """Counts, tells, and says what to answer. Nothing here is reached by a request that is in order."""

    def __init__(self, guesses: Guesses, refusals: Refusals, trusted_proxies: Sequence[Network]) -> None:
        self._guesses = guesses
        self._refusals = refusals
        self._trusted_proxies = trusted_proxies

    def counted_as(self, request: Request[Any, Any, Any]) -> str:
        """Return the client address under which a request is counted."""
        return counted_as(client_address(request.scope, self._trusted_proxies))

    async def wrong_code(
        self, wrong: WrongCodeError, caller: Caller, request: Request[Any, Any, Any]
    ) -> KnownError | PlainError:
        """Count a wrong code and return its answer: 429 past a budget."""
        visitor, project_id = self._visitor(request), caller.project.id
        key = key_name(dict(request.scope["headers"]), caller)
        counted = await self._guesses.count(visitor.counted_as, project_id, key)
        told_of = (visitor.address, visitor.user_agent)
        if wrong.unbound is not None:
            failed = BindingFailed(project_id, *told_of)
            await self._refusals.tell(failed, f"{wrong.unbound}:{visitor.counted_as}", counted.now, wrong.unbound)
        if counted.over is None:
            return wrong.answer
        refused = GuessRefused(project_id, wrong.code, counted.over, counted.wrong_codes, *told_of)
        whose = {"address": visitor.counted_as, "key": key, "project": ""}[counted.over]
        cause = f"{counted.over}:{whose}:{self._guesses.magnitude(counted)}"
        await self._refusals.tell(refused, cause, counted.now)
        return PlainError(429, TOO_MANY_WRONG_CODES, retry_after=_seconds(counted.wait_ms))

    async def too_soon(self, poll: PollTooSoonError, caller: Caller, request: Request[Any, Any, Any]) -> PlainError:
        """Return the answer to a poll that came too soon."""
        visitor = self._visitor(request)
        throttled = PollThrottled(caller.project.id, visitor.address, visitor.user_agent)
        await self._refusals.tell(throttled, poll.session_id, poll.now, poll.session_id)
        return PlainError(429, TOO_SOON, retry_after=_seconds(poll.wait_ms))

    async def no_session(
        self, refused: InitiationRefusedError, caller: Caller, request: Request[Any, Any, Any]
    ) -> PlainError:
        """Return the answer to a tool that gets no session."""
        visitor, project_id = self._visitor(request), caller.project.id
        event = InitiationRefused(project_id, refused.budget, visitor.address, visitor.user_agent)
        whose = visitor.counted_as if refused.budget == "address" else ""
        await self._refusals.tell(event, f"{refused.budget}:{whose}", refused.now)
        return PlainError(429, TOO_MANY_SESSIONS, retry_after=_seconds(refused.wait_ms))

    def _visitor(self, request: Request[Any, Any, Any]) -> _Visitor:
        address = client_address(request.scope, self._trusted_proxies)
        user_agent = dict(request.scope["headers"]).get(b"user-agent", b"").decode("latin-1")
        printable = "".join(character for character in user_agent if character.isprintable())
        return _Visitor(counted_as(address), str(address or UNKNOWN), printable[:MAX_USER_AGENT] or None)


def _seconds(milliseconds: int) -> int:
    """Return whole seconds, rounded up: sooner than that would be too soon again."""
    return max(1, -(-milliseconds // 1000))
