"""`POST /auth/oauth/token`: a client gets an access token for its refresh token, which stays as it is.

It comes without any of the headers of this interface: the form itself says which project it is of. A token that opens
nothing is told as a known error with a real 401, and not as RFC 6749 §5.2 says: on `invalid_grant` the clients of this
interface fail, where they are to sign out.
"""

import hashlib
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple
from urllib.parse import parse_qsl

import msgspec
from litestar.openapi.spec import Example, OpenAPIMediaType, Reference, RequestBody
from msgspec import Meta

from api.request.address import Sender
from api.request.answer import Answer
from api.request.body import parse_body
from api.request.endpoint import Asked
from api.request.headers import Headers, header
from api.request.refusals import Misfit, Unreadable
from api.stack import headers as names
from api.stack.access import Access
from api.stack.after_login.described import after_login
from api.stack.after_login.minting import minted
from api.stack.described import ACCESS_TOKEN, REFRESH_TOKEN, json_bodies
from api.stack.errors import BUSY, RECORDED, TOO_MANY_WRONG_CODES, KnownError, refusal
from api.stack.origins import readable_by
from api.tokens.refreshing import Refreshing
from projects.project import NO_PROJECT, KeyKind, Project
from statemachine.session import Flow
from tokens.access_tokens import AccessTokens

PUBLIC_CLIENT = "__stack_public_client__"
"""What clients send that have no publishable key."""
FORM = "application/x-www-form-urlencoded"
MAX_PARAMETERS = 100


class TokenRequest(msgspec.Struct, frozen=True):
    """A refresh (RFC 6749 §6), as a form or as JSON. What else is sent is ignored (RFC 6749 §3.2)."""

    grant_type: Literal["refresh_token"]
    refresh_token: str
    client_id: Annotated[str, Meta(description="The project's id.")]
    client_secret: Annotated[str, Meta(description=f"The project's publishable client key, or `{PUBLIC_CLIENT}`.")]


class AccessTokenResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """A new access token (RFC 6749 §5.1). There is no new refresh token: clients of this interface never take one."""

    access_token: Annotated[str, Meta(description="A JWT, for the project's backends.")]
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, Meta(ge=1, description="Seconds.")]
    scope: Annotated[str, Meta(description="Absent: the login was granted no scopes.")] = ""


STRUCTS = (TokenRequest, AccessTokenResponse)
_decoder = msgspec.json.Decoder(TokenRequest)
_EXAMPLE = {
    "grant_type": "refresh_token",
    "refresh_token": REFRESH_TOKEN,
    "client_id": "7f6a8a4e-52a1-4c6c-9d1f-0a8f3f1f6f52",
    "client_secret": PUBLIC_CLIENT,
}
_BODY = RequestBody(
    content={
        media_type: OpenAPIMediaType(
            Reference("#/components/schemas/TokenRequest"), examples={"refresh": Example(value=_EXAMPLE)}
        )
        for media_type in (FORM, "application/json")
    },
    required=True,
)
_RESPONSE = {"access_token": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 300}


class FormClient(NamedTuple):
    """The client that a form names."""

    project: Project
    secret: str
    sender: Callable[[], Sender]

    @property
    def is_backend(self) -> bool:
        """No backend refreshes here."""
        return False

    @property
    def flow(self) -> Flow:
        """The interface that this is."""
        return Flow.CLI

    def key_name(self) -> str:
        """Return what tells the client's key from others of the project, and is no secret."""
        if self.secret == PUBLIC_CLIENT:
            return "public-client"
        return hashlib.sha256(self.secret.encode()).hexdigest()[:16]


class TokenEndpoint:
    """Answers clients that refresh."""

    operation = after_login(
        "stack_token",
        "Get an access token, as OAuth has it",
        "Without any of the interface's headers: the body names the project. The refresh token stays as it is. One "
        "that opens nothing is a known error with status 401.",
        json_bodies({AccessTokenResponse: {"token": _RESPONSE}}),
        ["REFRESH_TOKEN_NOT_FOUND_OR_EXPIRED", "INVALID_OAUTH_CLIENT_ID_OR_SECRET"],
        headers=(),
        is_open=True,
        body=_BODY,
        too_many=[TOO_MANY_WRONG_CODES],
        unavailable=[BUSY, RECORDED],
    )

    def __init__(self, access: Access, refreshing: Refreshing, tokens: AccessTokens) -> None:
        self._access = access
        self._refreshing = refreshing
        self._tokens = tokens

    async def __call__(self, asked: Asked) -> Answer:
        """Return a new access token, or a refusal that pages of the project may read too."""
        request = _request(await asked.body(), asked.headers, asked.query)
        client = await self._client(request, asked.sender)
        try:
            refreshed = await self._refreshing.refresh(client, request.refresh_token, may_rotate=False)
        except Exception as error:  # noqa: BLE001 - the table of errors knows which are defects
            return _readable(refusal(error, "/auth/oauth/token"), asked.headers, client.project)
        token = minted(self._tokens, refreshed.family, refreshed.now)
        response = AccessTokenResponse(token, "Bearer", self._tokens.lifetime, refreshed.family.scope)
        return _readable(Answer(msgspec.json.encode(response)), asked.headers, client.project)

    async def _client(self, request: TokenRequest, sender: Callable[[], Sender]) -> FormClient:
        found, now = await self._access.project(request.client_id)
        # As much work for a project that there is as for one that there is not.
        matches = (found or NO_PROJECT).keys[KeyKind.PUBLISHABLE_CLIENT].matches(request.client_secret, now)
        if found is None or not (matches or request.client_secret == PUBLIC_CLIENT):
            raise KnownError("INVALID_OAUTH_CLIENT_ID_OR_SECRET", client_id=request.client_id)
        return FormClient(found, request.client_secret, sender)


def _request(body: bytes, headers: Headers, query: bytes) -> TokenRequest:
    """Return a request, of whichever media type.

    Raises:
        Unreadable, Misfit: what is wrong with it.

    """
    if query:
        raise Misfit("Expected all parameters in the body: a URI may be logged")
    media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if media_type != FORM.encode():
        return parse_body(body, headers, _decoder)
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except ValueError:
        raise Unreadable("The request body is not a form in UTF-8.") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise Misfit("A parameter is sent more than once")
    try:
        return msgspec.convert(form, TokenRequest)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at ")
        raise Misfit("Expected `refresh_token`" if "enum" in reason else reason, path and f"at {path}") from None


def _readable(answer: Answer, headers: Headers, project: Project) -> Answer:
    """Let pages of the project's origins read the answer, to a request whose headers name no project."""
    origin = headers.get(b"origin")
    if origin is None or header(headers, names.PROJECT_ID) or origin.decode("latin-1") not in project.allowed_origins:
        return answer
    return answer._replace(headers=(*answer.headers, *readable_by(origin)))
