"""Completing a login: a backend, which knows the person, gives the session of a login code its refresh token."""

from functools import partial
from typing import NamedTuple

import msgspec

from api.logins.by_login_code import ByLoginCode
from api.logins.guard import Asker
from api.logins.refusals import (
    AccessTokenRequired,
    BackendRequired,
    NotPending,
    RefreshTokenRequired,
    SubjectRequired,
)
from api.request.note import asked_by
from projects.project import Policy
from runtime.codes import RefreshToken, mint_refresh_token
from statemachine.commands import CompleteSession
from statemachine.handover import Handover
from statemachine.lifecycle import Outcome
from statemachine.sealing import seal
from statemachine.store.reading import LoginCodeHolder
from tokens.family import Opening


class TokenTerms(NamedTuple):
    """How long the refresh tokens live that are minted (milliseconds)."""

    idle_ms: int
    """Unless they are used."""
    life_ms: int
    """However often they are used."""

    def within(self, policy: Policy) -> "TokenTerms":
        """Return the terms in a project, whose policy can only shorten them."""
        return TokenTerms(
            min(policy.refresh_token_idle_ms or self.idle_ms, self.idle_ms),
            min(policy.refresh_token_life_ms or self.life_ms, self.life_ms),
        )


class Completion(NamedTuple):
    """What a backend brings for a login. Without a token, one is minted."""

    subject: str | None = None
    """Who the login is for, in the backend's own terms."""
    refresh_token: str | None = None
    token_response: bytes = b""
    """The backend's own (RFC 6749 §5.1), a JSON object; empty: there is none, or there is a refresh token."""
    scope: str | None = None
    """What is granted to an OAuth client; None: what it asked for."""

    @property
    def is_brought(self) -> bool:
        """Whether the token is the backend's own."""
        return self.refresh_token is not None or bool(self.token_response)

    @property
    def asked(self) -> tuple[str | None, ...]:
        """All that the request asks for."""
        more = (self.token_response.decode(), self.scope) if self.token_response or self.scope else ()
        return ("complete", self.refresh_token, self.subject, *more)


class Completing:
    """Completes sessions."""

    def __init__(self, by_login_code: ByLoginCode, reply_to: str, terms: TokenTerms | None) -> None:
        """Without `terms`, the tokens that are minted open nothing at the relay, and it forgets them (ADR 21)."""
        self._by_login_code = by_login_code
        self._reply_to = reply_to
        self._terms = terms

    async def complete(self, asker: Asker, login_code: str, completion: Completion, key: str | None) -> str | None:
        """Complete the session of a login code; returns when it *is* completed.

        Returns the family of the anonymous subject whose tool began the session, if there is one. `key` is the
        request's Idempotency-Key.

        Raises:
            NotPending: its session cannot be completed any more.
            SubjectRequired, AccessTokenRequired, RefreshTokenRequired, BackendRequired: it is not what such a session
                is completed with.
            WrongLoginCode, TooManyWrongCodes, KeyReused, Busy, NotDoneInTime: as `ByLoginCode.decide` does.

        """
        make = partial(self._command, asker, completion)
        outcome, holder = await self._by_login_code.decide(asker, login_code, completion.asked, key, make)
        if outcome is not Outcome.COMPLETED:
            raise NotPending
        return holder.anonymous_family if holder else None

    def _command(self, asker: Asker, completion: Completion, id_: str, holder: LoginCodeHolder) -> CompleteSession:
        check = _check_cli if holder.device_scope is None else _check_device
        check(asker, completion)
        minted = None if completion.is_brought else mint_refresh_token(holder.session_id)
        by = asked_by()
        return CompleteSession(
            id_,
            holder.session_id,
            self._reply_to,
            seal(
                _handover(completion, holder, minted).to_text(), holder.sealing_key, asker.project.id, holder.session_id
            ),
            # Not of a token that was brought: one that is easily guessed could be found from its digest.
            minted.digest.hex() if minted else None,
            completion.subject,
            request_id=by.request_id,
            traceparent=by.traceparent,
            opens=_opening(asker, completion, holder, minted, self._terms) if minted and self._terms else None,
        )


def _opening(
    asker: Asker, completion: Completion, holder: LoginCodeHolder, minted: RefreshToken, terms: TokenTerms
) -> Opening:
    """Return what the hand-over of a token opens.

    Tools of `/auth/cli` never take a new token, so theirs does not rotate; OAuth clients do. Only a backend can say
    whose tokens they are: a key that ships inside tools may complete a login, but not as somebody.
    """
    terms, is_device = terms.within(asker.project.policy), holder.device_scope is not None
    return Opening(
        minted.family_digest,
        minted.digest,
        (completion.subject if asker.is_backend else None) or minted.family_id,
        client_id=asker.project.id,
        idle_ms=terms.idle_ms,
        life_ms=terms.life_ms,
        flow="device" if is_device else "cli",
        rotates=is_device,
        scope=completion.scope or holder.device_scope or "",
    )


def _handover(completion: Completion, holder: LoginCodeHolder, minted: RefreshToken | None) -> Handover:
    if completion.token_response:
        return Handover(token_response=msgspec.Raw(completion.token_response))
    token = minted.text if minted else completion.refresh_token
    if holder.device_scope is None:
        return Handover(token)
    return Handover(token, completion.subject, completion.scope or holder.device_scope)


def _check_cli(_: Asker, completion: Completion) -> None:
    """Check what a session of `/auth/cli` is completed with: its tool takes a refresh token."""
    if completion.token_response and refresh_token_of(completion.token_response) is None:
        raise RefreshTokenRequired


def _check_device(asker: Asker, completion: Completion) -> None:
    """Check what a session of an OAuth client is completed with: it takes an access token."""
    if not asker.is_backend:
        raise BackendRequired
    if completion.refresh_token is not None:
        raise AccessTokenRequired
    if completion.subject is None and not completion.token_response:
        raise SubjectRequired


class _RefreshToken(msgspec.Struct):
    refresh_token: str | None = None


_refresh_token = msgspec.json.Decoder(_RefreshToken)


def refresh_token_of(token_response: bytes | msgspec.Raw) -> str | None:
    """Return the refresh token in a token response that was checked."""
    return _refresh_token.decode(token_response).refresh_token
