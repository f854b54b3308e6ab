"""Claiming: the page of a login takes over the anonymous session of the tool that began it, once.

A project must ask for it, and only a backend may claim: who has a login code would otherwise be who the tool was.
"""

import structlog
from redis.exceptions import OutOfMemoryError

from api.logins.guard import Asker
from api.logins.refusals import StoreFull
from api.tokens.refreshing import Refreshed, Refreshing
from api.tokens.refusals import DeadRefreshToken, NothingToClaim
from runtime.codes import normalise_login_code
from statemachine.store.initiating import Initiated
from tokens.claimable import seal, unseal
from tokens.signing_keys import Secrets
from tokens.store.claims import Claims

_log = structlog.get_logger("api")


class Claiming:
    """Keeps the refresh tokens of anonymous subjects for a claim, and hands them over."""

    def __init__(self, claims: Claims, refreshing: Refreshing, secrets: Secrets) -> None:
        """`secrets` returns the master secrets of now, of which there is at least one."""
        self._claims = claims
        self._refreshing = refreshing
        self._secrets = secrets

    async def keep(self, asker: Asker, begun: Initiated, refresh_token: str) -> None:
        """Keep the refresh token of the tool that began a session, as long as that is pending, if the project asks.

        Raises:
            StoreFull: Redis has no memory for it.

        """
        if not asker.project.policy.claim_anonymous:
            return
        sealed = seal(refresh_token, self._secrets()[0], asker.project.id, begun.session_id, begun.login_code)
        try:
            await self._claims.put(begun.session_id, sealed, begun.expires_at)
        except OutOfMemoryError:
            _log.warning("nothing was kept for a claim: redis is at its maxmemory")
            raise StoreFull from None

    async def claim(self, asker: Asker, session_id: str, login_code: str) -> tuple[str, Refreshed]:
        """Return the refresh token of the tool that began a pending session, and what it opens. It is gone then.

        Raises:
            NothingToClaim: there is none, or it was claimed before, or it opens nothing any more.
            Busy, NotDoneInTime: as `Refreshing.refresh` does; it may be claimed again.

        """
        sealed, code = await self._claims.read(session_id), normalise_login_code(login_code)
        if sealed is None or code is None or not asker.project.policy.claim_anonymous:
            raise NothingToClaim
        refresh_token = unseal(sealed, self._secrets(), asker.project.id, session_id, code)
        if refresh_token is None:
            raise NothingToClaim
        try:
            refreshed = await self._refreshing.refresh(asker, refresh_token, may_rotate=False)
        except DeadRefreshToken:
            raise NothingToClaim from None
        if not await self._claims.take(session_id):
            raise NothingToClaim
        return refresh_token, refreshed
