"""Wrong codes, hurried polls and sessions past a budget: what is counted, and the audit events that tell of it."""

from collections.abc import Callable
from typing import Literal, Protocol

from api.logins.refusals import (
    PolledTooSoon,
    TooManyLogins,
    TooManyWrongCodes,
    WrongLoginCode,
    WrongPollingCode,
    WrongRefreshToken,
)
from api.request.address import Sender
from projects.audit import Refusals
from projects.audit_events import (
    MAX_USER_AGENT,
    BindingFailed,
    GuessRefused,
    InitiationRefused,
    PollThrottled,
    TokenRepeated,
    TokenReused,
)
from projects.budgets import Guesses
from projects.errors import InitiationRefusedError
from projects.project import Project
from statemachine.session import Flow

WrongCode = WrongLoginCode | WrongPollingCode | WrongRefreshToken
_CODES: dict[type[WrongCode], Literal["login", "polling", "refresh_token"]] = {
    WrongLoginCode: "login",
    WrongPollingCode: "polling",
    WrongRefreshToken: "refresh_token",
}


class Asker(Protocol):
    """Who asks for something: a checked caller of some dialect. What only a refusal needs is a method."""

    @property
    def project(self) -> Project:
        """The project whose key was shown."""

    @property
    def is_backend(self) -> bool:
        """Whether the key is one that only backends and administrators have."""

    @property
    def flow(self) -> Flow:
        """The interface that it came by. A tool can only go on by the one where it began."""

    @property
    def sender(self) -> Callable[[], Sender]:
        """Returns where the request comes from."""

    def key_name(self) -> str:
        """Return what tells the key from others of the project, and is no secret."""


class Guard:
    """Counts and tells of refusals. A request that is in order costs nothing here."""

    def __init__(self, guesses: Guesses, refusals: Refusals) -> None:
        self._guesses = guesses
        self._refusals = refusals

    async def wrong_code(self, asker: Asker, wrong: WrongCode) -> WrongCode | TooManyWrongCodes:
        """Count a wrong code; returns how it is refused: as one too many past a budget."""
        sender, project_id, key = asker.sender(), asker.project.id, asker.key_name()
        counted = await self._guesses.count(sender.counted_as, project_id, key)
        told_of = (sender.address, _printable(sender.user_agent))
        unbound = wrong.unbound if isinstance(wrong, WrongPollingCode) else None
        if unbound is not None:
            failed = BindingFailed(project_id, *told_of)
            await self._refusals.tell(failed, f"{unbound}:{sender.counted_as}", counted.now, unbound)
        if counted.over is None:
            return wrong
        refused = GuessRefused(project_id, _CODES[type(wrong)], counted.over, counted.wrong_codes, *told_of)
        whose = {"address": sender.counted_as, "key": key, "project": ""}[counted.over]
        cause = f"{counted.over}:{whose}:{self._guesses.magnitude(counted)}"
        await self._refusals.tell(refused, cause, counted.now)
        return TooManyWrongCodes(counted.wait_ms)

    async def too_soon(self, asker: Asker, poll: PolledTooSoon) -> PolledTooSoon:
        """Tell of a poll that came too soon; returns how it is refused."""
        sender = asker.sender()
        throttled = PollThrottled(asker.project.id, sender.address, _printable(sender.user_agent))
        await self._refusals.tell(throttled, poll.session_id, poll.now, poll.session_id)
        return poll

    async def token_reused(self, asker: Asker, family_id: str, now: int) -> None:
        """Tell of an old refresh token, for which its family was revoked."""
        sender = asker.sender()
        reused = TokenReused(asker.project.id, sender.address, _printable(sender.user_agent))
        await self._refusals.tell(reused, family_id, now, family_id)

    async def token_repeated(self, asker: Asker, family_id: str, now: int) -> None:
        """Tell of a refresh token that was used again right after it was replaced."""
        sender = asker.sender()
        repeated = TokenRepeated(asker.project.id, sender.address, _printable(sender.user_agent))
        await self._refusals.tell(repeated, f"{family_id}:{sender.counted_as}", now, family_id)

    async def no_session(self, asker: Asker, refused: InitiationRefusedError) -> TooManyLogins:
        """Tell of a tool that gets no session; returns how it is refused."""
        sender = asker.sender()
        event = InitiationRefused(asker.project.id, refused.budget, sender.address, _printable(sender.user_agent))
        whose = sender.counted_as if refused.budget in {"address", "live_sessions_of_address"} else ""
        await self._refusals.tell(event, f"{refused.budget}:{whose}", refused.now)
        return TooManyLogins(refused.wait_ms)


def _printable(user_agent: str) -> str | None:
    """Return what an event may tell of a User-Agent, None if nothing is left of it."""
    return "".join(character for character in user_agent if character.isprintable())[:MAX_USER_AGENT] or None
