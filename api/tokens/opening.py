"""Opening a family without a login: a backend vouches for a subject, or a tool starts with an anonymous one."""

import secrets
import uuid
from typing import Literal, NamedTuple

import structlog
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from api.logins.completing import TokenTerms
from api.logins.refusals import StoreFull
from api.request.note import note_session
from projects.project import Project
from runtime.clock import redis_now
from runtime.codes import mint_refresh_token, new_session_id
from runtime.redis.keys import Keys
from tokens.family import Family, Opening, opened
from tokens.store.committing import TokenRetention
from tokens.store.recording import open_family

_log = structlog.get_logger("api")


class Opened(NamedTuple):
    """A new family, and its first token: it is not stored, so it cannot be shown again."""

    family: Family
    refresh_token: str
    now: int
    """Redis time in milliseconds."""


class OpeningFamilies:
    """Opens families that no login hands over. No worker is needed: there is nothing to decide."""

    def __init__(self, redis: Redis, keys: Keys, terms: TokenTerms, retention: TokenRetention) -> None:
        self._redis = redis
        self._keys = keys
        self._terms = terms
        self._retention = retention

    async def for_subject(
        self, project: Project, subject: str, *, client_id: str, rotates: bool, life_ms: int | None = None
    ) -> Opened:
        """Open a family for a subject that the backend names. `life_ms` can only shorten what the project allows.

        Raises:
            StoreFull: Redis has no memory for it; nothing was written.

        """
        return await self._open(project, subject, "server", client_id, rotates=rotates, life_ms=life_ms)

    async def anonymous(self, project: Project, *, client_id: str, rotates: bool) -> Opened:
        """Open a family for a new subject, a random UUID, that is nobody yet (`UpgradeFamily` changes that).

        Raises:
            StoreFull: Redis has no memory for it; nothing was written.

        """
        return await self._open(project, str(uuid.uuid4()), "anonymous", client_id, rotates=rotates, life_ms=None)

    async def _open(
        self,
        project: Project,
        subject: str,
        flow: Literal["server", "anonymous"],
        client_id: str,
        *,
        rotates: bool,
        life_ms: int | None,
    ) -> Opened:
        token = mint_refresh_token(new_session_id(secrets.choice(self._keys.partitions)))
        now, terms = await redis_now(self._redis), self._terms.within(project.policy)
        opening = Opening(
            token.family_digest,
            token.digest,
            subject,
            client_id,
            terms.idle_ms,
            min(life_ms or terms.life_ms, terms.life_ms),
            flow,
            rotates=rotates,
            anonymous=flow == "anonymous",
        )
        family = opened(token.family_id, project.id, opening, now, now)
        try:
            await open_family(self._redis, self._keys, family, now, self._retention)
        except OutOfMemoryError:
            _log.warning("no session was added: redis is at its maxmemory")
            raise StoreFull from None
        note_session(family.id)
        return Opened(family, token.text, now)
