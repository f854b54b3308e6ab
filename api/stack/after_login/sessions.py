"""`/auth/sessions`: where a user is logged in; a user ends one session, a backend any, or all, or opens one."""

from typing import Annotated
from urllib.parse import parse_qs

import msgspec
from litestar.openapi.spec import OpenAPIType, Parameter, Schema
from msgspec import Meta

from api.request.answer import Answer
from api.request.endpoint import Asked
from api.request.printable import PATTERN, check_printable
from api.request.refusals import Misfit
from api.stack.access import Caller, require_server_access
from api.stack.after_login.current import ENDED, ENDED_BODIES
from api.stack.after_login.described import SESSION, USER, after_login, user_id
from api.stack.after_login.minting import minted
from api.stack.after_login.users import OWN_ERRORS, Users
from api.stack.described import ACCESS_TOKEN, REFRESH_TOKEN, json_bodies, json_request
from api.stack.errors import BUSY, NO_SUCH_SESSION, OTHER_USER, RECORDED, STORE_FULL, KnownError, PlainError
from api.tokens.introspecting import Introspecting
from api.tokens.logging_out import LoggingOut
from api.tokens.opening import OpeningFamilies
from api.tokens.revoking import Revoking
from tokens.access_tokens import AccessTokens
from tokens.family import Family

MAX_USER_ID_LENGTH = 256
LONGEST_SESSION_MS = 367 * 86_400_000
ME = "me"
"""Stands for the user of the access token."""


class Item(msgspec.Struct, frozen=True):
    """A session. Times are in milliseconds since the epoch."""

    id: str
    user_id: str
    created_at: int
    last_used_at: Annotated[int, Meta(description="When its refresh token was last used, to the minute.")]
    is_impersonation: Annotated[bool, Meta(extra_json_schema={"const": False})]
    is_current_session: Annotated[bool, Meta(description="Whether the access token of the request is of it.")]


class Listed(msgspec.Struct, frozen=True):
    """The sessions of a user that have not ended, the latest first."""

    items: list[Item]
    is_paginated: Annotated[bool, Meta(extra_json_schema={"const": False})]


class OpenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose session is opened."""

    user_id: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=MAX_USER_ID_LENGTH,
            description="Any subject: the relay knows no users. No character may be invisible.",
            extra_json_schema={"pattern": PATTERN},
        ),
    ]
    expires_in_millis: (
        Annotated[
            int,
            Meta(ge=1, le=LONGEST_SESSION_MS, description="Absent, or longer than the project allows: as it allows."),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    is_impersonation: Annotated[
        bool, Meta(description="Only `false`: the relay knows no other kind.", extra_json_schema={"const": False})
    ] = False


class OpenedSession(msgspec.Struct, frozen=True):
    """The tokens of a new session."""

    refresh_token: str
    access_token: Annotated[str, Meta(description="A JWT.")]


STRUCTS = (Listed, Item, OpenRequest, OpenedSession)
_decoder = msgspec.json.Decoder(OpenRequest)
_ITEM = Item(SESSION, USER, 1_767_225_600_000, 1_767_226_200_000, is_impersonation=False, is_current_session=True)
_USER_ID = "`me`, the user of the access token; with server access any user."
_OWN_USER = ("USER_AUTHENTICATION_REQUIRED", *OWN_ERRORS)


class ListSessions:
    """Answers where a user is logged in."""

    operation = after_login(
        "list_sessions",
        "List a user's sessions",
        "Client access with an access token, for its own user; server access for any.",
        json_bodies({Listed: {"sessions": {"items": [msgspec.to_builtins(_ITEM)], "is_paginated": False}}}),
        _OWN_USER,
        user_id(_USER_ID),
        forbidden=[OTHER_USER],
    )

    def __init__(self, users: Users, introspecting: Introspecting) -> None:
        self._users = users
        self._introspecting = introspecting

    async def __call__(self, asked: Asked) -> Answer:
        """Return the sessions."""
        caller = await self._users.caller(asked)
        subject, current = await _whose(self._users, caller, asked)
        found = await self._introspecting.of_subject(caller.project.id, subject)
        items = [
            Item(
                family.id,
                family.subject,
                family.opened_at,
                family.refreshed_at,
                is_impersonation=False,
                is_current_session=current is not None and family.id == current.id,
            )
            for family in found
        ]
        return Answer(msgspec.json.encode(Listed(items, is_paginated=False)))


class EndSession:
    """Answers who ends one session."""

    operation = after_login(
        "end_session",
        "End a session",
        "Client access with an access token, for its own user's other sessions; server access for any.",
        ENDED_BODIES,
        ["CANNOT_DELETE_CURRENT_SESSION", *_OWN_USER],
        Parameter("session_id", "path", Schema(type=OpenAPIType.STRING), "From the list.", required=True),
        user_id(_USER_ID),
        forbidden=[OTHER_USER],
        missing=[NO_SUCH_SESSION],
        unavailable=[BUSY, RECORDED],
    )

    def __init__(self, users: Users, introspecting: Introspecting, revoking: Revoking) -> None:
        self._users = users
        self._introspecting = introspecting
        self._revoking = revoking

    async def __call__(self, asked: Asked) -> Answer:
        """Return 200 once the session has ended."""
        family_id = asked.path_parameter("session_id")
        caller = await self._users.caller(asked)
        subject, current = await _whose(self._users, caller, asked)
        if current is not None and current.id == family_id:
            raise KnownError("CANNOT_DELETE_CURRENT_SESSION")
        found = await self._introspecting.by_family(caller.project.id, family_id)
        if found is None or found.family.subject != subject:
            raise PlainError(404, NO_SUCH_SESSION)
        await self._revoking.revoke_family(caller.project.id, family_id, "server" if caller.is_backend else "client")
        return ENDED


class EndAllSessions:
    """Answers a backend that logs a user out everywhere."""

    operation = after_login(
        "end_all_sessions",
        "Log a user out everywhere",
        "Server access or higher. Also what was completed and not picked up yet opens nothing; a user without sessions "
        "is no error. It may be repeated.",
        ENDED_BODIES,
        ["INSUFFICIENT_ACCESS_TYPE"],
        user_id("The user."),
        headers=(),
    )

    def __init__(self, users: Users, logging_out: LoggingOut) -> None:
        self._users = users
        self._logging_out = logging_out

    async def __call__(self, asked: Asked) -> Answer:
        """Return 200 once it holds in every partition."""
        caller = await self._users.caller(asked)
        require_server_access(caller)
        subject = _user_id(asked)
        if subject == ME:
            raise Misfit("Expected the user's id", "in parameter user_id")
        await self._logging_out.everywhere(caller.project.id, subject)
        return ENDED


class OpenSession:
    """Answers a backend that opens a session."""

    operation = after_login(
        "open_session",
        "Open a session for a user",
        "Server access or higher: the backend vouches for the user.",
        json_bodies({OpenedSession: {"opened": {"refresh_token": REFRESH_TOKEN, "access_token": ACCESS_TOKEN}}}),
        ["INSUFFICIENT_ACCESS_TYPE"],
        headers=(),
        body=json_request(
            OpenRequest, {"for a day": {"user_id": USER, "expires_in_millis": 86_400_000}, "plain": {"user_id": USER}}
        ),
        unavailable=[STORE_FULL],
    )

    def __init__(self, users: Users, opening: OpeningFamilies, tokens: AccessTokens) -> None:
        self._users = users
        self._opening = opening
        self._tokens = tokens

    async def __call__(self, asked: Asked) -> Answer:
        """Return the tokens of a new session."""
        caller = await self._users.key_only(asked)
        require_server_access(caller)
        body = await asked.json(_decoder)
        check_printable(user_id=body.user_id)
        if body.is_impersonation:
            raise Misfit("Expected `false`: the relay knows no impersonation", "at `$.is_impersonation`")
        opened = await self._opening.for_subject(
            caller.project,
            body.user_id,
            client_id=caller.project.id,
            rotates=False,
            life_ms=body.expires_in_millis or None,
        )
        token = minted(self._tokens, opened.family, opened.now)
        return Answer(msgspec.json.encode(OpenedSession(opened.refresh_token, token)))


async def _whose(users: Users, caller: Caller, asked: Asked) -> tuple[str, Family | None]:
    """Return the subject that a request names, and the session of its access token, if it has one.

    Raises:
        KnownError: there is no access token, and it would be needed; or as `Users.user` does.
        PlainError: 403, a user may not ask for another.
        Misfit: no user is named.

    """
    named = _user_id(asked)
    needs_token = named == ME or not caller.is_backend
    user = await users.required(caller) if needs_token else await users.user(caller)
    current = None if user is None else user.family
    if current is None:
        return named, None
    if named in (ME, current.subject):
        return current.subject, current
    if not caller.is_backend:
        raise PlainError(403, OTHER_USER)
    return named, current


def _user_id(asked: Asked) -> str:
    """Return the user that the query names.

    Raises:
        Misfit: it names none, or several.

    """
    try:
        found = parse_qs(asked.query.decode(), errors="strict", max_num_fields=10).get("user_id", [])
    except ValueError:
        found = []
    if len(found) != 1 or len(found[0]) > MAX_USER_ID_LENGTH:
        raise Misfit(f"Expected one, of at most {MAX_USER_ID_LENGTH} characters", "in parameter user_id")
    return found[0]
