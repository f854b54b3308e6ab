"""`POST /auth/cli/complete`: a backend, which knows the person, completes the session that a login code names."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from api.logins.completing import Completing
from api.request.body import PRINTABLE
from api.request.endpoint import Asked, JsonResponse
from api.request.refusals import Misfit
from api.stack.access import Access, require_server_access
from api.stack.described import (
    IDEMPOTENCY_KEY,
    LOGIN_CODE,
    REFRESH_TOKEN,
    answer,
    error_answers,
    header_parameter,
    json_bodies,
    json_request,
    operation,
    refusals,
)
from api.stack.errors import (
    BUSY,
    INVALID_LOGIN_CODE,
    NO_ANONYMOUS_SESSION,
    RECORDED,
    STORE_AWAY,
    TOO_MANY_WRONG_CODES,
    PlainError,
)
from runtime.codes import TYPED_LOGIN_CODE_SHAPE

MAX_REFRESH_TOKEN_BYTES = 8_192
MAX_SUBJECT_LENGTH = 256


class CompleteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which login is completed, and with what."""

    login_code: Annotated[
        str,
        Meta(
            description="The code that the person brought; case, dashes and spaces do not matter.",
            extra_json_schema={"pattern": f"^{TYPED_LOGIN_CODE_SHAPE}$"},
        ),
    ]
    mode: Annotated[
        Literal["complete", "check", "claim-anon-session"],
        Meta(description="`check` only looks; `claim-anon-session` is refused until anonymous sessions exist."),
    ] = "complete"
    refresh_token: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=MAX_REFRESH_TOKEN_BYTES,
                description="Handed to the tool; at most 8192 bytes in UTF-8. Absent: the relay mints one.",
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    subject: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=MAX_SUBJECT_LENGTH,
                pattern=PRINTABLE,
                description="Who the login is for, in your own terms. Told in events, as `login_subject`, and never "
                "to the tool. It is kept in clear: no secret.",
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET


class Minted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Completed with a refresh token that the relay minted."""


class Completed(msgspec.Struct, frozen=True):
    """Completed with the refresh token of the request."""

    success: Annotated[bool, Meta(extra_json_schema={"const": True})]


class Checked(msgspec.Struct, frozen=True):
    """The answer to `mode: check`: the code is good, and its session is not anonymous."""

    cli_session_state: Literal["none"]


_decoder = msgspec.json.Decoder(CompleteRequest)
_MINTED = JsonResponse(msgspec.json.encode(Minted()))
_COMPLETED = JsonResponse(msgspec.json.encode(Completed(success=True)))
_CHECKED = JsonResponse(msgspec.json.encode(Checked("none")))


def _check_refresh_token(token: str) -> None:
    if len(token.encode()) > MAX_REFRESH_TOKEN_BYTES:  # the Struct counts characters
        raise Misfit(f"Expected at most {MAX_REFRESH_TOKEN_BYTES} bytes in UTF-8", "at `$.refresh_token`")


STRUCTS = (CompleteRequest, Minted, Completed, Checked)
_REFUSED = refusals(
    ["INSUFFICIENT_ACCESS_TYPE"], texts=[INVALID_LOGIN_CODE, NO_ANONYMOUS_SESSION], too_many=[TOO_MANY_WRONG_CODES]
)
OPERATION = operation(
    "complete",
    "Complete a login",
    "Server access or higher; client access where the project allows it. 200 means done, not queued.",
    {
        "200": answer(
            "The login is completed, or can be (`check`).",
            json_bodies(
                {
                    Minted: {"minted token": {}},
                    Completed: {"own token": {"success": True}},
                    Checked: {"checked": {"cli_session_state": "none"}},
                }
            ),
            overridden=_REFUSED,
        ),
        **error_answers(_REFUSED, [RECORDED, BUSY, STORE_AWAY]),
    },
    header_parameter(
        "Idempotency-Key",
        "Repeats the answer for a day, for whoever sends the same login code and key again.",
        IDEMPOTENCY_KEY,
    ),
    body=json_request(
        CompleteRequest,
        {
            "minted token": {"login_code": LOGIN_CODE},
            "own token": {"login_code": LOGIN_CODE, "refresh_token": REFRESH_TOKEN},
            "for whom": {"login_code": LOGIN_CODE, "subject": "user:42"},
            "check": {"login_code": LOGIN_CODE, "mode": "check"},
        },
    ),
)


class Complete:
    """Answers a backend that completes a login, or asks whether it could."""

    operation = OPERATION

    def __init__(self, access: Access, completing: Completing) -> None:
        self._access = access
        self._completing = completing

    async def __call__(self, asked: Asked) -> JsonResponse:
        """Return 200 once the session is completed; for `check`, if it could be."""
        caller = await self._access.check(asked.headers, asked.sender)
        if not caller.project.allow_client_complete:
            require_server_access(caller)
        body, key = asked.json(_decoder), asked.idempotency_key
        refresh_token = None if body.refresh_token is msgspec.UNSET else body.refresh_token
        subject = None if body.subject is msgspec.UNSET else body.subject
        if refresh_token is not None:
            _check_refresh_token(refresh_token)
        if body.mode == "complete":
            await self._completing.complete(caller, body.login_code, refresh_token, subject, key)
            return _MINTED if refresh_token is None else _COMPLETED
        await self._completing.check(caller, body.login_code)
        if body.mode == "claim-anon-session":
            raise PlainError(400, NO_ANONYMOUS_SESSION)
        return _CHECKED
