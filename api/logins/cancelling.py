"""Cancelling a login: its tool waits for it no longer."""

from api.logins.commanding import Commanding, identify
from api.logins.guard import Asker, Guard
from api.logins.proof import Proof
from api.logins.refusals import WrongPollingCode
from api.request.note import asked_by, note_session
from runtime.redis.keys import Keys
from statemachine.commands import CancelSession
from statemachine.store.reading import Sessions


class Cancelling:
    """Cancels sessions."""

    def __init__(self, store: Sessions, commanding: Commanding, guard: Guard, keys: Keys) -> None:
        self._store = store
        self._commanding = commanding
        self._guard = guard
        self._keys = keys

    async def cancel(self, asker: Asker, polling_code: str, code_verifier: str | None, key: str | None) -> None:
        """End a session for its tool; returns when no token can be handed over any more, or one was before.

        `key` is the request's Idempotency-Key.

        Raises:
            WrongPollingCode: the code names no session of the project, or its verifier is not that session's.
            TooManyWrongCodes: the same, and a budget is used up.
            KeyReused: the key came with another request before.
            Busy: the backlog is full.
            NotDoneInTime: no worker answered in time.

        """
        try:
            proof = Proof.of(asker, polling_code, code_verifier, len(self._keys.partitions))
            session_id = proof.code.session_id
            note_session(session_id)
            proof.check(await self._store.read(session_id))
        except WrongPollingCode as wrong:
            raise await self._guard.wrong_code(asker, wrong) from None
        id_, fingerprint = identify(key, (proof.code.text,), proof.code.text, ("cancel", code_verifier))
        by = asked_by()
        command = CancelSession(
            id_,
            session_id,
            self._commanding.reply_to,
            request_id=by.request_id,
            traceparent=by.traceparent,
        )
        await self._commanding.decide(command, fingerprint)  # whatever its outcome: the tool has gone
