"""Who a request is of, beside the key of its project: the user of its access token."""

import time
from typing import NamedTuple

from api.request.endpoint import Asked
from api.request.headers import header
from api.request.note import note_session
from api.stack import headers as names
from api.stack.access import Access, Caller
from api.stack.errors import KnownError
from api.tokens.introspecting import Introspecting
from tokens.access_tokens import AccessToken, AccessTokens, ExpiredAccessTokenError, InvalidAccessTokenError
from tokens.family import Family

OWN_ERRORS = ("UNPARSABLE_ACCESS_TOKEN", "ACCESS_TOKEN_EXPIRED")
"""The known errors of an access token."""


class User(NamedTuple):
    """The user of an access token that is good, and whose session has not ended."""

    family: Family
    now: int
    """Redis time in milliseconds."""


class Users:
    """Checks who asks."""

    def __init__(self, access: Access, tokens: AccessTokens, introspecting: Introspecting) -> None:
        self._access = access
        self._tokens = tokens
        self._introspecting = introspecting

    async def key_only(self, asked: Asked) -> Caller:
        """Check the key of the project. The body is still to be received."""
        return await self._access.check(asked.headers, asked.sender)

    async def caller(self, asked: Asked) -> Caller:
        """Check the key of the project, and receive the body, in which nothing is looked for."""
        caller = await self.key_only(asked)
        await asked.body()
        return caller

    def claims(self, caller: Caller) -> AccessToken | None:
        """Return what the request's access token says; None if there is no such token.

        Raises:
            KnownError: `UNPARSABLE_ACCESS_TOKEN`, `ACCESS_TOKEN_EXPIRED`.

        """
        token = header(caller.headers, names.ACCESS_TOKEN)
        if token is None:
            return None
        project_id = caller.project.id
        try:
            # The machine's clock, as that of every verifier: the token's times are for them.
            found = self._tokens.verify(token, project_id, {project_id}, time.time(), accept_anonymous=True)
        except ExpiredAccessTokenError as expired:
            raise KnownError("ACCESS_TOKEN_EXPIRED", expired_at_millis=expired.expired_at * 1000) from None
        except InvalidAccessTokenError:
            raise KnownError("UNPARSABLE_ACCESS_TOKEN") from None
        note_session(found.family_id)
        return found

    async def user(self, caller: Caller) -> User | None:
        """Return the user of the request's access token; None if there is no such token.

        The token of a session that was ended counts as expired, so that its client refreshes, and learns of the end.

        Raises:
            KnownError: `UNPARSABLE_ACCESS_TOKEN`, `ACCESS_TOKEN_EXPIRED`.

        """
        claims = self.claims(caller)
        if claims is None:
            return None
        found = await self._introspecting.by_family(caller.project.id, claims.family_id)
        if found is None:
            raise KnownError("ACCESS_TOKEN_EXPIRED", expired_at_millis=int(time.time() * 1000))
        if found.family.rotates:
            raise KnownError("UNPARSABLE_ACCESS_TOKEN")  # an OAuth client's, whose scope says nothing of this interface
        return User(found.family, found.now)

    async def required(self, caller: Caller) -> User:
        """Return the user of the request's access token.

        Raises:
            KnownError: `USER_AUTHENTICATION_REQUIRED`, or as `user` does.

        """
        user = await self.user(caller)
        if user is None:
            raise KnownError("USER_AUTHENTICATION_REQUIRED")
        return user
