"""`POST /auth/cli/complete`: a backend, which knows the person, completes the session that a login code names."""

import contextlib
from collections.abc import Iterator
from typing import Annotated, Literal, assert_never

import msgspec
from msgspec import Meta

from api.logins.completing import Completing, Completion
from api.logins.denying import Denying
from api.logins.inspecting import Asking, Inspecting
from api.logins.refusals import KeyReused
from api.request.answer import Answer
from api.request.body import given
from api.request.endpoint import Asked
from api.request.printable import PATTERN, check_printable
from api.request.refusals import Misfit
from api.stack.access import Access, require_server_access
from api.stack.after_login.anonymous import Anonymous, Claimed
from api.stack.described import (
    ACCESS_TOKEN,
    IDEMPOTENCY_KEY,
    LOGIN_CODE,
    REFRESH_TOKEN,
    SESSION_ID,
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
    KEY_REUSED,
    NO_ANONYMOUS_SESSION,
    RECORDED,
    STORE_AWAY,
    TOO_MANY_WRONG_CODES,
    TOO_MUCH_AT_ONCE,
    PlainError,
)
from api.tokens.refusals import NothingToClaim
from runtime.clock import rfc3339
from runtime.codes import SESSION_ID_SHAPE, TYPED_LOGIN_CODE_SHAPE

MAX_REFRESH_TOKEN_LENGTH = 8_192
MAX_SUBJECT_LENGTH = 256
MAX_SCOPE_LENGTH = 256
MAX_TOKEN_RESPONSE_BYTES = 8_192


_ONE_SCOPE = r"[\x21\x23-\x5b\x5d-\x7e]+"  # RFC 6749 §3.3


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
        Literal["complete", "check", "inspect", "deny", "claim-anon-session"],
        Meta(
            description="`check` only looks. `inspect` returns who asks, and `deny` ends the login; both need server "
            "access. `claim-anon-session` returns the session of an anonymous user that the tool has, once: it needs "
            "server access, and the project must allow it."
        ),
    ] = "complete"
    refresh_token: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=MAX_REFRESH_TOKEN_LENGTH,
                pattern=r"^[\x21-\x7e]*$(?!\n)",  # RFC 6749 appendix A.17: tools print it, and send it in headers
                description="Handed to the tool: visible ASCII. Absent: the relay mints one.",
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
                description="Who the login is for, in your own terms. Told in events, as `login_subject`, and never "
                "to the tool. It is kept in clear: no secret. No character may be invisible (Unicode categories C, "
                "Zl, Zp and fillers).",
                extra_json_schema={"pattern": PATTERN},
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET

    scope: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=MAX_SCOPE_LENGTH,
                pattern=rf"^{_ONE_SCOPE}( {_ONE_SCOPE})*$(?!\n)",
                description="What is granted to an OAuth client: scopes separated by spaces (RFC 6749 §3.3). Absent: "
                "what it asked for.",
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    token_response: (
        Annotated[
            msgspec.Raw,
            Meta(
                description="The backend's own tokens (RFC 6749 §5.1), in place of `refresh_token`: at most 8 192 "
                "bytes, handed to an OAuth client whole, with `expires_in` less by the time that has passed, and "
                "without `id_token`. A tool of `/auth/cli` gets the `refresh_token` in it.",
                extra_json_schema={
                    "type": "object",
                    "required": ["access_token", "token_type"],
                    "properties": {
                        "access_token": {"type": "string", "pattern": "^[\\x20-\\x7e]+$"},
                        "token_type": {"type": "string", "pattern": "^[\\x21-\\x7e]+$"},
                        "expires_in": {"type": "integer", "minimum": 1},
                        "refresh_token": {"type": "string", "pattern": "^[\\x21-\\x7e]+$"},
                        "scope": {"type": "string"},
                    },
                },
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET


class TokenResponse(msgspec.Struct, frozen=True):
    """What a backend's own token response must have, or may have in this form (RFC 6749 §5.1 and appendix A)."""

    access_token: Annotated[str, Meta(pattern=r"^[\x20-\x7e]+$(?!\n)")]
    token_type: Annotated[str, Meta(pattern=r"^[\x21-\x7e]+$(?!\n)")]
    expires_in: Annotated[int, Meta(ge=1)] | None = None
    refresh_token: Annotated[str, Meta(pattern=r"^[\x21-\x7e]+$(?!\n)")] | None = None
    scope: str | None = None


class Minted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Completed with a refresh token that the relay minted."""


class Done(msgspec.Struct, frozen=True):
    """Completed with the refresh token of the request, or denied."""

    success: Annotated[bool, Meta(extra_json_schema={"const": True})]


class Checked(msgspec.Struct, frozen=True):
    """The answer to `mode: check`: the code is good. `anonymous`: its tool has a session of an anonymous user."""

    cli_session_state: Literal["none", "anonymous"]


class Inspected(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to `mode: inspect`: who asks to be logged in. What is not known is left out."""

    session_id: Annotated[str, Meta(pattern=f"^{SESSION_ID_SHAPE}$", description="As in events and logs.")]
    flow: Annotated[
        Literal["cli", "device"], Meta(description="The interface that started the login: this, or RFC 8628.")
    ]
    initiated_at: Annotated[str, Meta(description="RFC 3339, UTC, milliseconds.")]
    expires_at: Annotated[str, Meta(description="The same.")]
    cli_session_state: Literal["none", "anonymous"]
    client_name: Annotated[str | None, Meta(description="What the tool calls itself. Unverified, as the next two.")] = (
        None
    )
    client_version: str | None = None
    hostname: str | None = None
    address: Annotated[str | None, Meta(description="Where the tool's request came from.")] = None
    scope: Annotated[str | None, Meta(description="What an OAuth client asks for.")] = None


_decoder = msgspec.json.Decoder(CompleteRequest)
_token_response = msgspec.json.Decoder(TokenResponse)
_MINTED = Answer(msgspec.json.encode(Minted()))
_DONE = Answer(msgspec.json.encode(Done(success=True)))
_CHECKED = Answer(msgspec.json.encode(Checked("none")))
_CHECKED_ANONYMOUS = Answer(msgspec.json.encode(Checked("anonymous")))


STRUCTS = (CompleteRequest, Minted, Done, Checked, Inspected, Claimed)
_REFUSED = refusals(
    ["INSUFFICIENT_ACCESS_TYPE"],
    texts=[INVALID_LOGIN_CODE, NO_ANONYMOUS_SESSION],
    reused=[KEY_REUSED],
    too_many=[TOO_MANY_WRONG_CODES],
)
_INSPECTED = {
    "session_id": SESSION_ID,
    "flow": "cli",
    "client_name": "acme",
    "hostname": "laptop",
    "address": "192.0.2.1",
    "initiated_at": "2026-01-01T00:00:00.000Z",
    "expires_at": "2026-01-01T00:15:00.000Z",
    "cli_session_state": "none",
}
OPERATION = operation(
    "complete",
    "Complete a login",
    "Server access or higher; client access where the project allows it, but for `inspect`, `deny` and "
    "`claim-anon-session`. 200 means done, "
    "not queued.",
    {
        "200": answer(
            "The login is completed, can be (`check`, `inspect`), or is denied.",
            json_bodies(
                {
                    Minted: {"minted token": {}},
                    Done: {"own token, or denied": {"success": True}},
                    Checked: {
                        "checked": {"cli_session_state": "none"},
                        "anonymous": {"cli_session_state": "anonymous"},
                    },
                    Inspected: {"inspected": _INSPECTED},
                    Claimed: {"claimed": {"access_token": ACCESS_TOKEN, "refresh_token": REFRESH_TOKEN}},
                }
            ),
            overridden=_REFUSED,
        ),
        **error_answers(_REFUSED, [RECORDED, BUSY, TOO_MUCH_AT_ONCE, STORE_AWAY]),
    },
    header_parameter(
        "Idempotency-Key",
        "Repeats the answer for a day, for the same request with the same key.",
        IDEMPOTENCY_KEY,
    ),
    body=json_request(
        CompleteRequest,
        {
            "minted token": {"login_code": LOGIN_CODE},
            "own token": {"login_code": LOGIN_CODE, "refresh_token": REFRESH_TOKEN},
            "for whom": {"login_code": LOGIN_CODE, "subject": "user:42"},
            "for an OAuth client": {"login_code": LOGIN_CODE, "subject": "user:42", "scope": "repo:read"},
            "own tokens": {
                "login_code": LOGIN_CODE,
                "token_response": {"access_token": "an-access-token", "token_type": "Bearer", "expires_in": 3_600},
            },
            "check": {"login_code": LOGIN_CODE, "mode": "check"},
            "inspect": {"login_code": LOGIN_CODE, "mode": "inspect"},
            "deny": {"login_code": LOGIN_CODE, "mode": "deny"},
            "claim": {"login_code": LOGIN_CODE, "mode": "claim-anon-session"},
        },
    ),
)


class Complete:
    """Answers a backend that completes or denies a login, or looks at it first."""

    operation = OPERATION

    def __init__(
        self,
        access: Access,
        inspecting: Inspecting,
        completing: Completing,
        denying: Denying,
        anonymous: Anonymous | None = None,
    ) -> None:
        """`anonymous` is None where the relay signs no access tokens."""
        self._access = access
        self._inspecting = inspecting
        self._completing = completing
        self._denying = denying
        self._anonymous = anonymous

    async def __call__(self, asked: Asked) -> Answer:
        """Return 200 once what was asked for is done, or if it could be (`check`, `inspect`)."""
        caller = await self._access.check(asked.headers, asked.sender)
        if not caller.project.allow_client_complete:
            require_server_access(caller)
        body, key = await asked.json(_decoder), asked.idempotency_key
        match body.mode:
            case "complete":
                completion = _completion(body)
                with _in_plain_text():
                    anonymous_family = await self._completing.complete(caller, body.login_code, completion, key)
                if anonymous_family and self._anonymous:
                    await self._anonymous.subjects.completed(caller, anonymous_family, completion.subject)
                return _DONE if completion.is_brought else _MINTED
            case "deny":
                require_server_access(caller)
                with _in_plain_text():
                    await self._denying.deny(caller, body.login_code, key)
                return _DONE
            case "inspect":
                require_server_access(caller)
                return _inspected(await self._inspecting.inspect(caller, body.login_code))
            case "check":
                holder = await self._inspecting.check(caller, body.login_code)
                return _CHECKED_ANONYMOUS if holder.anonymous_family else _CHECKED
            case "claim-anon-session":
                require_server_access(caller)
                holder = await self._inspecting.check(caller, body.login_code)
                if holder.anonymous_family is None or self._anonymous is None:
                    raise NothingToClaim
                return await self._anonymous.claimed(caller, holder.session_id, body.login_code)
            case _:
                assert_never(body.mode)


@contextlib.contextmanager
def _in_plain_text() -> Iterator[None]:
    """Answer in plain text what other operations answer with a known error: clients print the body to people."""
    try:
        yield
    except KeyReused:
        raise PlainError(422, KEY_REUSED) from None


def _completion(body: CompleteRequest) -> Completion:
    subject, refresh_token, brought = given(body.subject), given(body.refresh_token), given(body.token_response)
    check_printable(subject=subject)
    if brought is not None:
        if refresh_token is not None:
            raise Misfit("Expected no `refresh_token` beside it", "at `$.token_response`")
        _check_token_response(bytes(brought))
    return Completion(subject, refresh_token, b"" if brought is None else bytes(brought), given(body.scope))


def _check_token_response(brought: bytes) -> None:
    if len(brought) > MAX_TOKEN_RESPONSE_BYTES:
        raise Misfit(f"Expected at most {MAX_TOKEN_RESPONSE_BYTES} bytes", "at `$.token_response`")
    try:
        _token_response.decode(brought)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
        raise Misfit(reason, f"at `$.token_response{path.removesuffix('`')}`") from None


def _inspected(asking: Asking) -> Answer:
    body = Inspected(
        asking.session_id,
        asking.flow.value,
        rfc3339(asking.initiated_at),
        rfc3339(asking.expires_at),
        "anonymous" if asking.is_anonymous else "none",
        asking.client.client_name,
        asking.client.client_version,
        asking.client.hostname,
        asking.address,
        asking.scope,
    )
    return Answer(msgspec.json.encode(body))
