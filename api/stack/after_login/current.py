"""`/auth/sessions/current`: a client signs out, or refreshes without the form of OAuth."""

from typing import Annotated

import msgspec
from msgspec import Meta

from api.request.answer import Answer
from api.request.endpoint import Asked
from api.request.headers import header
from api.request.refusals import Misfit
from api.stack import headers as names
from api.stack.after_login.described import REFRESH_TOKEN_HEADERS, after_login
from api.stack.after_login.minting import minted
from api.stack.after_login.users import OWN_ERRORS, Users
from api.stack.described import ACCESS_TOKEN, json_bodies
from api.stack.errors import BUSY, RECORDED, TOO_MANY_WRONG_CODES, KnownError
from api.tokens.introspecting import Introspecting
from api.tokens.refreshing import Refreshing
from api.tokens.refusals import DeadRefreshToken
from api.tokens.revoking import Revoking
from tokens.access_tokens import AccessTokens


class Ended(msgspec.Struct, frozen=True):
    """What was to end has ended."""

    success: Annotated[bool, Meta(extra_json_schema={"const": True})]


class Refreshed(msgspec.Struct, frozen=True):
    """A new access token."""

    access_token: Annotated[str, Meta(description="A JWT.")]


STRUCTS = (Ended, Refreshed)
ENDED = Answer(msgspec.json.encode(Ended(success=True)))
ENDED_BODIES = json_bodies({Ended: {"ended": {"success": True}}})


class SignOut:
    """Answers a client that signs out."""

    operation = after_login(
        "sign_out",
        "Sign out",
        "Client access or higher. The session of the access token ends: its refresh token opens nothing any more.",
        ENDED_BODIES,
        ["USER_AUTHENTICATION_REQUIRED", "REFRESH_TOKEN_NOT_FOUND_OR_EXPIRED", *OWN_ERRORS],
        unavailable=[BUSY, RECORDED],
    )

    def __init__(self, users: Users, introspecting: Introspecting, revoking: Revoking) -> None:
        self._users = users
        self._introspecting = introspecting
        self._revoking = revoking

    async def __call__(self, asked: Asked) -> Answer:
        """Return 200 once the session has ended, and what a dead token is told if it had before."""
        caller = await self._users.caller(asked)
        claims = self._users.claims(caller)
        if claims is None:
            raise KnownError("USER_AUTHENTICATION_REQUIRED")
        found = await self._introspecting.by_family(caller.project.id, claims.family_id)
        if found is None or found.family.rotates:
            raise DeadRefreshToken
        await self._revoking.revoke_family(caller.project.id, claims.family_id, "client")
        return ENDED


class RefreshCurrent:
    """Answers a client that refreshes."""

    operation = after_login(
        "refresh_session",
        "Get an access token",
        "Client access or higher. The refresh token stays as it is.",
        json_bodies({Refreshed: {"refreshed": {"access_token": ACCESS_TOKEN}}}),
        ["REFRESH_TOKEN_NOT_FOUND_OR_EXPIRED"],
        headers=REFRESH_TOKEN_HEADERS,
        too_many=[TOO_MANY_WRONG_CODES],
        unavailable=[BUSY, RECORDED],
    )

    def __init__(self, users: Users, refreshing: Refreshing, tokens: AccessTokens) -> None:
        self._users = users
        self._refreshing = refreshing
        self._tokens = tokens

    async def __call__(self, asked: Asked) -> Answer:
        """Return a new access token."""
        caller = await self._users.caller(asked)
        token = header(caller.headers, names.REFRESH_TOKEN)
        if token is None:
            raise Misfit("Expected a refresh token", "in header x-stack-refresh-token")
        refreshed = await self._refreshing.refresh(caller, token, may_rotate=False)
        return Answer(msgspec.json.encode(Refreshed(minted(self._tokens, refreshed.family, refreshed.now))))
