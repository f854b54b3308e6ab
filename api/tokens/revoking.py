"""Revoking: a tool, or its backend, ends a family, and none of its tokens opens anything any more."""

import secrets
from typing import Literal

from api.logins.guard import Asker
from api.request.note import asked_by, note_session
from api.tokens.commanding import FamilyCommanding
from runtime.codes import is_session_id, parse_refresh_token
from runtime.redis.keys import Keys
from tokens.commands import RevokeFamily
from tokens.family import Family, is_genuine
from tokens.machine import decide
from tokens.store.reading import Families


class Revoking:
    """Revokes families. What does not exist, or is revoked already, needs no worker."""

    def __init__(self, families: Families, commanding: FamilyCommanding, keys: Keys) -> None:
        self._families = families
        self._commanding = commanding
        self._keys = keys

    async def revoke_token(self, asker: Asker, refresh_token: str, client_id: str | None = None) -> None:
        """Revoke the family of a refresh token of any generation; returns when it *is* revoked (RFC 7009 §2.2).

        A token that is unknown, forged, another project's or another client's does nothing, and is no error.

        Raises:
            Busy: the backlog is full.
            NotDoneInTime: no worker decided it in time.

        """
        presented = parse_refresh_token(refresh_token, len(self._keys.partitions))
        if presented is None:
            return
        note_session(presented.family_id)
        family, now = await self._families.read_of(asker.project.id, presented.family_id)
        if family is None or client_id not in (None, family.client_id):
            return
        if is_genuine(family, presented.family_digest):
            await self._revoke(family, now, "client")

    async def revoke_family(self, project_id: str, family_id: str, why: Literal["client", "server"]) -> bool:
        """Revoke a family by its id (the claim `sid` of an access token that was verified, or from a list).

        Returns when it is revoked: True, also if it was before; False if the project has no such family.

        Raises:
            Busy: the backlog is full.
            NotDoneInTime: no worker decided it in time.

        """
        if not is_session_id(family_id, len(self._keys.partitions)):
            return False
        note_session(family_id)
        family, now = await self._families.read_of(project_id, family_id)
        if family is None:
            return False
        await self._revoke(family, now, why)
        return True

    async def _revoke(self, family: Family, now: int, why: Literal["client", "server"]) -> None:
        by = asked_by()
        command = RevokeFamily(
            secrets.token_hex(16),
            family.id,
            self._commanding.reply_to,
            why,
            request_id=by.request_id,
            traceparent=by.traceparent,
        )
        if decide(family, command, now, 0).target is not None:
            await self._commanding.decide(command)
