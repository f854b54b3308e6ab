"""Denying a login: the person does not want it, or does not know the tool that asks."""

from api.logins.commanding import Commanding, command_id
from api.logins.guard import Asker, Guard
from api.logins.refusals import NotPending, WrongLoginCode
from api.request.note import asked_by, note_session
from runtime.codes import login_code_digest, normalise_login_code
from statemachine.commands import DenySession
from statemachine.lifecycle import Outcome
from statemachine.store.reading import Sessions


class Denying:
    """Denies sessions."""

    def __init__(self, store: Sessions, commanding: Commanding, guard: Guard) -> None:
        self._store = store
        self._commanding = commanding
        self._guard = guard

    async def deny(self, asker: Asker, login_code: str, key: str | None) -> None:
        """Deny the session of a login code; returns when it *is* denied. A token that waits for it is deleted.

        `key` is the request's Idempotency-Key.

        Raises:
            WrongLoginCode: the code names no session.
            TooManyWrongCodes: the same, and a budget is used up.
            NotPending: the token was picked up, or the session ended in another way.
            Busy: the backlog is full.
            NotDoneInTime: no worker answered in time.

        """
        project_id, code = asker.project.id, normalise_login_code(login_code)
        holder, _ = await self._store.find_by_login_code(project_id, code) if code else (None, None)
        if code is None or holder is None:
            raise await self._guard.wrong_code(asker, WrongLoginCode())
        note_session(holder.session_id)
        id_, by = command_id("deny", login_code_digest(project_id, code), key), asked_by()
        command = DenySession(
            id_,
            holder.session_id,
            self._commanding.reply_to,
            "declined",
            request_id=by.request_id,
            traceparent=by.traceparent,
        )
        answer = await self._commanding.decide(command, repeatable=key is not None)
        if answer.outcome is not Outcome.DENIED:
            raise NotPending
