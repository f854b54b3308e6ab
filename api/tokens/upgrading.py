"""Upgrading: the anonymous subject of a family became somebody. Its tokens stay, and say so from then on."""

import secrets

from api.request.note import asked_by, note_session
from api.tokens.commanding import FamilyCommanding
from runtime.codes import is_session_id
from runtime.redis.keys import Keys
from tokens.commands import UpgradeFamily
from tokens.lifecycle import Outcome


class Upgrading:
    """Upgrades families."""

    def __init__(self, commanding: FamilyCommanding, keys: Keys) -> None:
        self._commanding = commanding
        self._keys = keys

    async def upgrade(self, family_id: str) -> bool:
        """Clear `anonymous` of a family that the caller found to be of its project; the subject stays as it is.

        Returns whether it was anonymous and alive.

        Raises:
            Busy: the backlog is full.
            NotDoneInTime: no worker decided it in time.

        """
        if not is_session_id(family_id, len(self._keys.partitions)):
            return False
        note_session(family_id)
        by = asked_by()
        command = UpgradeFamily(
            secrets.token_hex(16),
            family_id,
            self._commanding.reply_to,
            request_id=by.request_id,
            traceparent=by.traceparent,
        )
        answer = await self._commanding.decide(command)
        return answer.outcome is Outcome.UPGRADED
