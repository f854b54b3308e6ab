"""Introspecting: whether a refresh token, or the login behind an access token, opens doors at this moment."""

from typing import NamedTuple

from runtime.codes import is_session_id, parse_refresh_token
from runtime.redis.keys import Keys
from tokens.family import Family, is_alive
from tokens.lifecycle import Outcome
from tokens.machine import decide_refresh
from tokens.store.reading import Families

_WORKS = frozenset({Outcome.ROTATED, Outcome.REPEATED, Outcome.KEPT})


class Introspected(NamedTuple):
    """A family that opens doors (RFC 7662 §2.2: `active` is true)."""

    family: Family
    """`ends_at` and `dies_at` are its `exp`, with and without further refreshes, in milliseconds."""
    now: int
    """Redis time in milliseconds."""


class Introspecting:
    """Reads families. Nothing is changed, and no worker is needed.

    An access token that verifies says only what was true when it was minted. `by_family` with its claim `sid` is the
    immediate check. All that is not alive, or another project's, is None: an answer says nothing more about it.
    """

    def __init__(self, families: Families, keys: Keys, *, grace_ms: int) -> None:
        self._families = families
        self._keys = keys
        self._grace_ms = grace_ms

    async def by_token(self, project_id: str, refresh_token: str) -> Introspected | None:
        """Return the family of a refresh token that a refresh would accept; None for any other text."""
        presented = parse_refresh_token(refresh_token, len(self._keys.partitions))
        if presented is None:
            return None
        family, now = await self._families.read_of(project_id, presented.family_id)
        if family is None:
            return None
        shown = presented.generation, presented.family_digest, presented.digest
        works = decide_refresh(family, *shown, now, self._grace_ms).outcome in _WORKS
        return Introspected(family, now) if works else None

    async def by_family(self, project_id: str, family_id: str) -> Introspected | None:
        """Return a family that is alive, by its id; None otherwise."""
        if not is_session_id(family_id, len(self._keys.partitions)):
            return None
        family, now = await self._families.read_of(project_id, family_id)
        if family is None or not is_alive(family, now):
            return None
        return Introspected(family, now)

    async def of_subject(self, project_id: str, subject: str) -> list[Family]:
        """Return a subject's families that are alive, the latest opened first: where somebody is logged in."""
        return await self._families.of_subject(project_id, subject)
