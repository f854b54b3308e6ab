"""Refreshing: a tool shows its refresh token, and learns whether it opens doors and what replaces it."""

import secrets
from typing import NamedTuple

from api.logins.guard import Asker, Guard
from api.logins.refusals import NotDoneInTime, WrongRefreshToken
from api.request.note import asked_by, note_session
from api.tokens.commanding import FamilyCommanding
from api.tokens.refusals import DeadRefreshToken
from runtime.codes import RefreshToken, parse_refresh_token
from runtime.redis.keys import Keys
from tokens.commands import RefreshFamily
from tokens.errors import SuccessorSealingError
from tokens.family import Family, family_after, is_genuine
from tokens.lifecycle import Decision, Outcome
from tokens.machine import decide_refresh
from tokens.sealing import seal, unseal
from tokens.store.committing import TokenRetention
from tokens.store.reading import Families


class Refreshed(NamedTuple):
    """What a refresh comes to. The dialect mints the access token: for the family, at `now`."""

    family: Family
    """Its `id` is the claim `sid`; `subject`, `client_id`, `scope` and `audience` are those of the access token."""
    refresh_token: str | None
    """The token that replaces the one that was shown; None: that one stays (RFC 6749 §6)."""
    now: int
    """Redis time in milliseconds."""


class Refreshing:
    """Answers refreshes. The lifecycle (`tokens.lifecycle`) says what each token comes to."""

    def __init__(
        self, families: Families, commanding: FamilyCommanding, guard: Guard, keys: Keys, retention: TokenRetention
    ) -> None:
        self._families = families
        self._commanding = commanding
        self._guard = guard
        self._keys = keys
        self._retention = retention

    async def refresh(
        self, asker: Asker, refresh_token: str, client_id: str | None = None, *, may_rotate: bool = True
    ) -> Refreshed:
        """Return what a refresh token opens, and its successor if it rotates.

        The same token may ask again for the replay window and gets the same successor, so a client may repeat a refresh
        whose answer was lost, or which raised Busy or NotDoneInTime. `client_id` is the client that asks, if the
        dialect knows it: a family is refreshed by its own client only. A family that does not rotate needs no worker.
        Unless it `may_rotate`, a family that would is not touched: its client takes no new token, and would be lost.

        Raises:
            DeadRefreshToken: it opens nothing; if it was an old token, its family is revoked now.
            WrongRefreshToken: it was forged. Nothing happens to the family that it names.
            TooManyWrongCodes: the same, and a budget is used up.
            Busy: the backlog is full.
            NotDoneInTime: no worker decided it in time.

        """
        presented = parse_refresh_token(refresh_token, len(self._keys.partitions))
        if presented is None:
            raise DeadRefreshToken
        family, now = await self._family_of(asker, presented, client_id)
        if family.rotates and not may_rotate:
            raise DeadRefreshToken
        shown = presented.generation, presented.family_digest, presented.digest
        decision, sealed = decide_refresh(family, *shown, now, self._retention.grace_ms), None
        if decision.target is None:
            # No worker will look whether the subject was logged out, so it is looked here.
            family = await self._families.with_cutoff(family)
            decision = decide_refresh(family, *shown, now, self._retention.grace_ms)
        if decision.target is not None:
            # It would change something, so a worker decides, on the family as it will find it.
            successor = presented.successor()
            command = self._command(presented, successor)
            answer = await self._commanding.decide(command)
            decision, sealed = Decision(decision.target, Outcome(answer.outcome)), answer.sealed_token
            if decision.outcome is Outcome.ROTATED:
                return Refreshed(family_after(family, command, decision, now), successor.text, now)
        match decision.outcome:
            case Outcome.REPEATED:
                await self._guard.token_repeated(asker, family.id, now)
                return Refreshed(family, await self._repeated(presented, sealed), now)
            case Outcome.KEPT:
                await self._families.touch(family, now, self._retention.remembered_ms)
                return Refreshed(family, None, now)
            case Outcome.REUSED:
                await self._guard.token_reused(asker, family.id, now)
                raise DeadRefreshToken
            case _:
                raise DeadRefreshToken

    async def _family_of(self, asker: Asker, presented: RefreshToken, client_id: str | None) -> tuple[Family, int]:
        """Return the family of a token that was once genuine, without its cut-off, and the time in milliseconds."""
        note_session(presented.family_id)
        family, now = await self._families.read_of(asker.project.id, presented.family_id, with_cutoff=False)
        if family is None or client_id not in (None, family.client_id):
            raise DeadRefreshToken
        if not is_genuine(family, presented.family_digest):
            raise await self._guard.wrong_code(asker, WrongRefreshToken())
        return family, now

    async def _repeated(self, presented: RefreshToken, sealed: bytes | None) -> str:
        """Return the successor that a token was given before.

        Raises:
            NotDoneInTime: the replay window closed, or the successor was used, since the family was read: the next
                request is answered as that says.

        """
        sealed = sealed or await self._families.read_successor(presented.family_id)
        if sealed is None:
            raise NotDoneInTime
        try:
            return unseal(sealed, presented)
        except SuccessorSealingError:
            raise NotDoneInTime from None

    def _command(self, presented: RefreshToken, successor: RefreshToken) -> RefreshFamily:
        by = asked_by()
        return RefreshFamily(
            secrets.token_hex(16),
            presented.family_id,
            self._commanding.reply_to,
            self._commanding.patience_ms,
            presented.generation,
            presented.family_digest,
            presented.digest,
            successor.digest,
            seal(successor, presented),
            request_id=by.request_id,
            traceparent=by.traceparent,
        )
