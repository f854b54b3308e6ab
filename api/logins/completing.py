"""Completing a login: a backend, which knows the person, gives the session of a login code its refresh token."""

from functools import partial
from typing import NamedTuple

from api.logins.by_login_code import ByLoginCode
from api.logins.guard import Asker
from api.logins.refusals import NotPending
from api.request.note import asked_by
from projects.project import Policy, Project
from runtime.codes import RefreshToken, mint_refresh_token
from statemachine.commands import CompleteSession
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


class Completing:
    """Completes sessions."""

    def __init__(self, by_login_code: ByLoginCode, reply_to: str, terms: TokenTerms) -> None:
        self._by_login_code = by_login_code
        self._reply_to = reply_to
        self._terms = terms

    async def complete(
        self, asker: Asker, login_code: str, refresh_token: str | None, login_subject: str | None, key: str | None
    ) -> None:
        """Complete the session of a login code; returns when it *is* completed.

        Without a refresh token one is minted. `key` is the request's Idempotency-Key.

        Raises:
            NotPending: its session cannot be completed any more.
            WrongLoginCode, TooManyWrongCodes, KeyReused, Busy, NotDoneInTime: as `ByLoginCode.decide` does.

        """
        asked = ("complete", refresh_token, login_subject)
        make = partial(self._command, asker.project, refresh_token, login_subject)
        outcome = await self._by_login_code.decide(asker, login_code, asked, key, make)
        if outcome is not Outcome.COMPLETED:
            raise NotPending

    def _command(
        self, project: Project, refresh_token: str | None, login_subject: str | None, id_: str, holder: LoginCodeHolder
    ) -> CompleteSession:
        minted = None if refresh_token else mint_refresh_token(holder.session_id)
        token, by = minted.text if minted else refresh_token or "", asked_by()
        return CompleteSession(
            id_,
            holder.session_id,
            self._reply_to,
            seal(token, holder.sealing_key, project.id, holder.session_id),
            # Not of a token that was brought: one that is easily guessed could be found from its digest.
            minted.digest.hex() if minted else None,
            login_subject,
            request_id=by.request_id,
            traceparent=by.traceparent,
            opens=self._opening(minted, project, login_subject) if minted else None,
        )

    def _opening(self, minted: RefreshToken, project: Project, login_subject: str | None) -> Opening:
        """Return what the hand-over of a token opens. Tools of this interface never take a new token: none rotates."""
        terms = self._terms.within(project.policy)
        return Opening(
            minted.family_digest,
            minted.digest,
            login_subject or minted.family_id,
            client_id=project.id,
            idle_ms=terms.idle_ms,
            life_ms=terms.life_ms,
        )
