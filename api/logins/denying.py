"""Denying a login: the person does not want it, or does not know the tool that asks."""

from api.logins.by_login_code import ByLoginCode
from api.logins.guard import Asker
from api.logins.refusals import NotPending
from api.request.note import asked_by
from statemachine.commands import DenySession
from statemachine.lifecycle import Outcome
from statemachine.store.reading import LoginCodeHolder


class Denying:
    """Denies sessions."""

    def __init__(self, by_login_code: ByLoginCode, reply_to: str) -> None:
        self._by_login_code = by_login_code
        self._reply_to = reply_to

    async def deny(self, asker: Asker, login_code: str, key: str | None) -> None:
        """Deny the session of a login code; returns when it *is* denied. A token that waits for it is deleted.

        `key` is the request's Idempotency-Key.

        Raises:
            NotPending: the token was picked up, or the session ended in another way.
            WrongLoginCode, TooManyWrongCodes, KeyReused, Busy, NotDoneInTime: as `ByLoginCode.decide` does.

        """
        outcome, _ = await self._by_login_code.decide(asker, login_code, ("deny",), key, self._command)
        if outcome is not Outcome.DENIED:
            raise NotPending

    def _command(self, id_: str, holder: LoginCodeHolder) -> DenySession:
        by = asked_by()
        return DenySession(
            id_,
            holder.session_id,
            self._reply_to,
            "declined",
            request_id=by.request_id,
            traceparent=by.traceparent,
        )
