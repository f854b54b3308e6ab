"""Commands for the session that a login code names: at most one for each Idempotency-Key."""

from collections.abc import Callable
from typing import NamedTuple

from api.logins.commanding import Commanding, identify
from api.logins.guard import Asker, Guard
from api.logins.refusals import KeyReused, WrongLoginCode
from api.request.note import note_session
from runtime.codes import login_code_digest, normalise_login_code
from runtime.redis.keys import Keys
from statemachine.commands import Command
from statemachine.lifecycle import Outcome
from statemachine.store.reading import LoginCodeHolder, Sessions

MakeCommand = Callable[[str, LoginCodeHolder], Command]
"""Returns a command by its id, for the session of a login code."""


class Decided(NamedTuple):
    """What became of a command."""

    outcome: Outcome
    holder: LoginCodeHolder | None
    """The session of the login code; None if it is over, and only its outcome is still remembered."""


class ByLoginCode:
    """Records commands for login codes."""

    def __init__(self, store: Sessions, commanding: Commanding, guard: Guard, keys: Keys) -> None:
        self._store = store
        self._commanding = commanding
        self._guard = guard
        self._keys = keys

    async def decide(
        self, asker: Asker, login_code: str, asked: tuple[str | None, ...], key: str | None, make: MakeCommand
    ) -> Decided:
        """Return what became of a command; `asked` is all that the request asks for, `key` its Idempotency-Key.

        Raises:
            WrongLoginCode: the code names no session.
            TooManyWrongCodes: the same, and a budget is used up.
            KeyReused: the key came with another request before.
            Busy: the backlog is full.
            NotDoneInTime: no worker answered in time.

        """
        project_id, code = asker.project.id, normalise_login_code(login_code)
        if code is None:
            raise await self._guard.wrong_code(asker, WrongLoginCode())
        # A key belongs to who sends it: what tools may do with a public key takes no key away from the backend.
        sender = (project_id, "backend" if asker.is_backend else "client")
        id_, fingerprint = identify(key, sender, code, asked)
        holder, kept = await self._store.find_by_login_code(project_id, code, id_ if key else None)
        if kept is not None and not kept.is_of(fingerprint):
            raise KeyReused
        if holder is not None:
            note_session(holder.session_id)
        if kept is not None:
            partition = self._keys.partition_of_login(login_code_digest(project_id, code))
            answer = await self._commanding.recorded(partition, id_)
        elif holder is None:
            raise await self._guard.wrong_code(asker, WrongLoginCode())
        else:
            command = make(id_, holder)
            answer = await self._commanding.decide(command, fingerprint, repeatable=key is not None)
        return Decided(Outcome(answer.outcome), holder)
