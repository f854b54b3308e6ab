"""`POST /auth/cli`: a tool asks for a session."""

from typing import Annotated, Literal

import msgspec
from litestar.openapi.spec import Link
from msgspec import Meta

from api.logins.initiating import Initiating
from api.request.answer import Answer
from api.request.body import given
from api.request.endpoint import Asked
from api.request.printable import PATTERN, check_printable
from api.request.refusals import Misfit
from api.stack.access import Access
from api.stack.after_login.anonymous import Anonymous
from api.stack.described import (
    CODE_CHALLENGE,
    LOGIN_CODE,
    POLLING_CODE,
    SESSION_ID,
    answer,
    error_answers,
    json_bodies,
    json_request,
    operation,
    refusals,
)
from api.stack.errors import (
    ANONYMOUS_OFF,
    INVALID_ANONYMOUS_TOKEN,
    NOT_ANONYMOUS,
    STORE_AWAY,
    STORE_FULL,
    TOO_MANY_SESSIONS,
    TOO_MUCH_AT_ONCE,
    PlainError,
)
from runtime.clock import rfc3339
from runtime.codes import (
    CODE_CHALLENGE_SHAPE,
    LOGIN_CODE_SHAPE,
    POLLING_CODE_SHAPE,
    SESSION_ID_SHAPE,
    display_login_code,
)
from statemachine.session import MAX_FACT_LENGTH, MAX_FACTS_BYTES, ClientFacts

Fact = Annotated[str, Meta(min_length=1, max_length=MAX_FACT_LENGTH, extra_json_schema={"pattern": PATTERN})]


class InitiateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a tool asks for and says of itself. Every field is optional."""

    expires_in_millis: (
        Annotated[
            int,
            Meta(
                ge=1_000, le=86_400_000, description="Life of the session in milliseconds; absent: the relay's setting."
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    anon_refresh_token: (
        Annotated[
            str,
            Meta(
                description="The refresh token of the anonymous user that the tool has. Refused where there are no "
                "anonymous users, never silently dropped.",
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    code_challenge: (
        Annotated[
            str,
            Meta(
                pattern=rf"^{CODE_CHALLENGE_SHAPE}$(?!\n)",  # `$` alone would let a line feed pass
                description="Binds the session (RFC 7636 §4.3): every poll must then bring the `code_verifier` that "
                "this was made from.",
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    code_challenge_method: (
        Annotated[Literal["S256"], Meta(description="How it was made. Absent: so, too; there is no other method.")]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    client_name: Annotated[
        Fact | None,
        Meta(
            description="Name of the tool, shown to the person who approves. No character may be invisible (Unicode "
            "categories C, Zl, Zp and fillers). This and the next two have at most 256 bytes in UTF-8 together."
        ),
    ] = None
    client_version: Annotated[Fact | None, Meta(description="Version of the tool, shown likewise.")] = None
    hostname: Annotated[Fact | None, Meta(description="Machine that the tool runs on, shown likewise.")] = None


class InitiateResponse(msgspec.Struct, frozen=True):
    """A new session."""

    polling_code: Annotated[
        str, Meta(pattern=f"^{POLLING_CODE_SHAPE}$", description="The tool's secret, for its polls.")
    ]
    login_code: Annotated[
        str,
        Meta(pattern=f"^{LOGIN_CODE_SHAPE}$", description="For the person."),
    ]
    expires_at: Annotated[
        str,
        Meta(
            pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
            description="When the session ends unless it is completed: RFC 3339, UTC, milliseconds.",
            extra_json_schema={"format": "date-time"},
        ),
    ]
    interval: Annotated[int, Meta(ge=1, le=60, description="Seconds that a poller should leave between polls.")]
    session_id: Annotated[
        str, Meta(pattern=f"^{SESSION_ID_SHAPE}$", description="Names the session in events and logs. No secret.")
    ]


_decoder = msgspec.json.Decoder(InitiateRequest)
_encoder = msgspec.json.Encoder()


STRUCTS = (InitiateRequest, InitiateResponse)
_REFUSED = refusals(texts=[INVALID_ANONYMOUS_TOKEN, NOT_ANONYMOUS, ANONYMOUS_OFF], too_many=[TOO_MANY_SESSIONS])
_SESSION = {
    "polling_code": POLLING_CODE,
    "login_code": LOGIN_CODE,
    "expires_at": "2026-01-01T00:15:00.000Z",
    "interval": 2,
    "session_id": SESSION_ID,
}
OPERATION = operation(
    "initiate",
    "Start a login",
    "Client access or higher.",
    {
        "200": answer(
            "The session is pending.",
            json_bodies({InitiateResponse: {"session": _SESSION}}),
            overridden=_REFUSED,
            links={
                "poll": Link(operation_id="poll", request_body={"polling_code": "$response.body#/polling_code"}),
                "complete": Link(operation_id="complete", request_body={"login_code": "$response.body#/login_code"}),
            },
        ),
        **error_answers(_REFUSED, [TOO_MUCH_AT_ONCE, STORE_FULL, STORE_AWAY]),
    },
    body=json_request(
        InitiateRequest,
        {
            "defaults": {},
            "ten minutes": {"expires_in_millis": 600_000},
            "introduced": {"client_name": "acme", "client_version": "1.4.2", "hostname": "build-7"},
            "bound": {"code_challenge": CODE_CHALLENGE, "code_challenge_method": "S256"},
        },
        required=False,
        dependent_required={"code_challenge_method": ["code_challenge"]},
    ),
)


class Initiate:
    """Answers a tool that asks for a session."""

    operation = OPERATION

    def __init__(
        self, access: Access, initiating: Initiating, poll_interval_s: int, anonymous: Anonymous | None = None
    ) -> None:
        """`anonymous` is None where the relay signs no access tokens."""
        self._access = access
        self._initiating = initiating
        self._poll_interval_s = poll_interval_s
        self._anonymous = anonymous

    async def __call__(self, asked: Asked) -> Answer:
        """Return both codes of a new session."""
        caller = await self._access.check(asked.headers, asked.sender)
        body = await asked.json(_decoder)
        challenge = given(body.code_challenge)
        if challenge is None and body.code_challenge_method is not msgspec.UNSET:
            raise Misfit("Expected `code_challenge` with it", "at `$.code_challenge_method`")
        facts, anonymous_family = _facts(body), None
        if body.anon_refresh_token is not msgspec.UNSET:
            if self._anonymous is None:
                raise PlainError(400, ANONYMOUS_OFF)
            anonymous_family = await self._anonymous.subjects.family_of(caller, body.anon_refresh_token)
        initiated = await self._initiating.start(
            caller,
            facts,
            lifetime_ms=body.expires_in_millis or None,
            code_challenge=challenge,
            anonymous_family=anonymous_family,
        )
        if self._anonymous and body.anon_refresh_token is not msgspec.UNSET:
            await self._anonymous.claiming.keep(caller, initiated, body.anon_refresh_token)
        response = InitiateResponse(
            polling_code=initiated.polling_code,
            login_code=display_login_code(initiated.login_code),
            expires_at=rfc3339(initiated.expires_at),
            interval=self._poll_interval_s,
            session_id=initiated.session_id,
        )
        return Answer(_encoder.encode(response))


def _facts(body: InitiateRequest) -> ClientFacts:
    check_printable(client_name=body.client_name, client_version=body.client_version, hostname=body.hostname)
    given = (body.client_name, body.client_version, body.hostname)
    if sum(len(fact.encode()) for fact in given if fact is not None) > MAX_FACTS_BYTES:
        names = "`client_name`, `client_version` and `hostname`"
        raise Misfit(f"Expected at most {MAX_FACTS_BYTES} bytes in UTF-8 in {names} together")
    return ClientFacts(*given)
