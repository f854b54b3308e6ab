"""Anonymous subjects that log in: a tool shows the session that it has, and the login may make it somebody's."""

from api.logins.guard import Asker
from api.tokens.introspecting import Introspecting
from api.tokens.refusals import NoAnonymousToken, NotAnonymous
from api.tokens.upgrading import Upgrading


class AnonymousSubjects:
    """Finds and upgrades anonymous subjects."""

    def __init__(self, introspecting: Introspecting, upgrading: Upgrading) -> None:
        self._introspecting = introspecting
        self._upgrading = upgrading

    async def family_of(self, asker: Asker, refresh_token: str) -> str:
        """Return the family of an anonymous subject's refresh token.

        Raises:
            NoAnonymousToken: it opens nothing, or is another project's.
            NotAnonymous: it is of somebody.

        """
        found = await self._introspecting.by_token(asker.project.id, refresh_token)
        if found is None:
            raise NoAnonymousToken
        if not found.family.anonymous:
            raise NotAnonymous
        return found.family.id

    async def completed(self, asker: Asker, anonymous_family: str, subject: str | None) -> None:
        """Upgrade the anonymous subject whose tool began a login that was completed for `subject`, if it is the same.

        The subject stays as it is, and so do its tokens. If the login is another subject's, nothing happens to it: what
        was done anonymously is the backend's to move. It may be repeated.

        Raises:
            Busy: the backlog is full.
            NotDoneInTime: no worker decided it in time.

        """
        if not asker.is_backend or subject is None:
            return
        found = await self._introspecting.by_family(asker.project.id, anonymous_family)
        if found is None or found.family.subject != subject or not found.family.anonymous:
            return
        await self._upgrading.upgrade(anonymous_family)
