"""Anonymous users: `POST /auth/anonymous/sign-up` makes one; a tool that has one may show it when it logs in."""

from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from api.request.answer import Answer
from api.request.endpoint import Asked
from api.stack.access import Caller
from api.stack.after_login.described import after_login
from api.stack.after_login.minting import minted
from api.stack.after_login.users import Users
from api.stack.described import ACCESS_TOKEN, REFRESH_TOKEN, json_bodies
from api.stack.errors import STORE_FULL, TOO_MANY_SESSIONS
from api.tokens.anonymous import AnonymousSubjects
from api.tokens.claiming import Claiming
from api.tokens.signing_up import SigningUp
from tokens.access_tokens import AccessTokens


class SignedUp(msgspec.Struct, frozen=True):
    """A session of a new anonymous user."""

    access_token: Annotated[str, Meta(description="A JWT of another issuer and key than those of named users.")]
    refresh_token: str
    user_id: Annotated[str, Meta(description="A random UUID.")]


STRUCTS = (SignedUp,)
_EXAMPLE = {
    "access_token": ACCESS_TOKEN,
    "refresh_token": REFRESH_TOKEN,
    "user_id": "3d6a2c1e-8b0f-4f57-9d52-6f0c5f0e1c11",
}


class Claimed(msgspec.Struct, frozen=True):
    """The session of the anonymous user that the tool has: the very token that it showed."""

    access_token: Annotated[str, Meta(description="A JWT.")]
    refresh_token: str


class Anonymous(NamedTuple):
    """What the first steps of a login do with anonymous users."""

    subjects: AnonymousSubjects
    claiming: Claiming
    tokens: AccessTokens

    async def claimed(self, caller: Caller, session_id: str, login_code: str) -> Answer:
        """Return the session of the tool that began a session which is pending, once."""
        token, refreshed = await self.claiming.claim(caller, session_id, login_code)
        return Answer(msgspec.json.encode(Claimed(minted(self.tokens, refreshed.family, refreshed.now), token)))


class SignUp:
    """Answers a tool that wants an anonymous user."""

    operation = after_login(
        "sign_up_anonymously",
        "Begin as an anonymous user",
        "Client access or higher; how often is limited as for logins.",
        json_bodies({SignedUp: {"anonymous": _EXAMPLE}}),
        [],
        headers=(),
        too_many=[TOO_MANY_SESSIONS],
        unavailable=[STORE_FULL],
    )

    def __init__(self, users: Users, signing_up: SigningUp, tokens: AccessTokens) -> None:
        self._users = users
        self._signing_up = signing_up
        self._tokens = tokens

    async def __call__(self, asked: Asked) -> Answer:
        """Return the tokens of a new user."""
        opened = await self._signing_up.start(await self._users.caller(asked))
        token = minted(self._tokens, opened.family, opened.now)
        return Answer(msgspec.json.encode(SignedUp(token, opened.refresh_token, opened.family.subject)))
