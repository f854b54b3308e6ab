"""Completing a login: a backend, which knows the person, gives the session of a login code its refresh token."""

import hashlib

from api.logins.commanding import Commanding, command_id
from api.logins.guard import Asker, Guard
from api.logins.refusals import NotPending, WrongLoginCode
from api.request.note import asked_by, note_session
from runtime.codes import login_code_digest, mint_refresh_token, normalise_login_code
from runtime.redis.keys import Keys
from statemachine.commands import CompleteSession
from statemachine.lifecycle import Outcome
from statemachine.sealing import seal
from statemachine.store.reading import LoginCodeHolder, Sessions


class Completing:
    """Completes sessions."""

    def __init__(self, store: Sessions, commanding: Commanding, guard: Guard, keys: Keys) -> None:
        self._store = store
        self._commanding = commanding
        self._guard = guard
        self._keys = keys

    async def complete(
        self, asker: Asker, login_code: str, refresh_token: str | None, login_subject: str | None, key: str | None
    ) -> None:
        """Complete the session of a login code; returns when it *is* completed.

        Without a refresh token one is minted. `key` is the request's Idempotency-Key.

        Raises:
            WrongLoginCode: the code names no session.
            TooManyWrongCodes: the same, and a budget is used up.
            NotPending: its session cannot be completed any more.
            Busy: the backlog is full.
            NotDoneInTime: no worker answered in time.

        """
        project_id, code = asker.project.id, normalise_login_code(login_code)
        if code is None:
            raise await self._guard.wrong_code(asker, WrongLoginCode())
        digest = login_code_digest(project_id, code)
        id_ = command_id("complete", digest, key)
        holder, outcome = await self._store.find_by_login_code(project_id, code, id_ if key else None)
        if holder is not None:
            note_session(holder.session_id)
        if outcome is not None:
            answer = await self._commanding.recorded(self._keys.partition_of_login(digest), id_)
        elif holder is None:
            raise await self._guard.wrong_code(asker, WrongLoginCode())
        else:
            command = self._command(id_, project_id, holder, refresh_token, login_subject)
            answer = await self._commanding.decide(command, repeatable=key is not None)
        if answer.outcome is not Outcome.COMPLETED:
            raise NotPending

    def _command(
        self, id_: str, project_id: str, holder: LoginCodeHolder, refresh_token: str | None, login_subject: str | None
    ) -> CompleteSession:
        token, by = refresh_token or mint_refresh_token(), asked_by()
        return CompleteSession(
            id_,
            holder.session_id,
            self._commanding.reply_to,
            seal(token, holder.sealing_key, project_id, holder.session_id),
            # Not of a token that was brought: one that is easily guessed could be found from its digest.
            None if refresh_token else hashlib.sha256(token.encode()).hexdigest(),
            login_subject,
            request_id=by.request_id,
            traceparent=by.traceparent,
        )
