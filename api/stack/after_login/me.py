"""`GET /users/me`: a client asks who is logged in. The relay has no users: it tells the subject, and no more."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from api.request.answer import Answer
from api.request.endpoint import Asked
from api.stack.after_login.described import USER, after_login
from api.stack.after_login.users import OWN_ERRORS, Users
from api.stack.described import json_bodies
from api.stack.errors import KnownError


class Me(msgspec.Struct, frozen=True):
    """The user of the access token, with the fields that Stack's clients read. What the relay cannot know is empty."""

    id: Annotated[str, Meta(description="The subject: whom the login was completed for, or the session's id.")]
    is_anonymous: bool
    is_restricted: bool
    signed_up_at_millis: Annotated[int, Meta(description="When the session began.")]
    last_active_at_millis: int
    restricted_reason: dict[str, str] | None = None
    primary_email: None = None
    primary_email_verified: bool = False
    primary_email_auth_enabled: bool = False
    display_name: None = None
    profile_image_url: None = None
    selected_team: None = None
    selected_team_id: None = None
    client_metadata: None = None
    client_read_only_metadata: None = None
    has_password: bool = False
    auth_with_email: bool = False
    otp_auth_enabled: bool = False
    passkey_auth_enabled: bool = False
    requires_totp_mfa: bool = False
    oauth_providers: list[Any] = []


STRUCTS = (Me,)
_EXAMPLE = Me(
    USER,
    is_anonymous=False,
    is_restricted=False,
    signed_up_at_millis=1_767_225_600_000,
    last_active_at_millis=1_767_226_200_000,
)


class GetMe:
    """Answers who is logged in."""

    operation = after_login(
        "get_me",
        "Find out who is logged in",
        "Client access or higher, with an access token.",
        json_bodies({Me: {"user": msgspec.to_builtins(_EXAMPLE)}}),
        ["CANNOT_GET_OWN_USER_WITHOUT_USER", *OWN_ERRORS],
    )

    def __init__(self, users: Users) -> None:
        self._users = users

    async def __call__(self, asked: Asked) -> Answer:
        """Return the user."""
        user = await self._users.user(await self._users.caller(asked))
        if user is None:
            raise KnownError("CANNOT_GET_OWN_USER_WITHOUT_USER")
        family = user.family
        found = Me(
            family.subject,
            is_anonymous=family.anonymous,
            is_restricted=family.anonymous,
            restricted_reason={"type": "anonymous"} if family.anonymous else None,
            signed_up_at_millis=family.opened_at,
            last_active_at_millis=family.refreshed_at,
        )
        return Answer(msgspec.json.encode(found))
