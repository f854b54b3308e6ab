"""The OpenAPI 3.1 document, served at `/schema`: what the dialects say of their operations, put together.

The tests hold the answers of a running service against it.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version

import msgspec
from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.spec import Components, Info, License, OpenAPI, Operation, PathItem, Server, Tag
from litestar.response.base import ASGIResponse

from api.oauth import described as oauth
from api.oauth import metadata
from api.oauth.device_authorization import DeviceAuthorization
from api.oauth.errors import ErrorBody
from api.oauth.introspection import Active, Inactive
from api.oauth.routes import OPERATIONS
from api.oauth.token_endpoint import BroughtTokens, TokenResponse
from api.request.endpoint import Method
from api.request.health import Health
from api.stack import cancel, complete, events, initiate, poll
from api.stack.after_login import anonymous, current, me, sessions, token_endpoint
from api.stack.after_login import routes as after_login
from api.stack.components import header_components, known_error_schemas, parameter_components, security_schemes
from api.stack.described import answer, error_answers, json_bodies
from api.stack.errors import STORE_AWAY

DESCRIPTION = """\
Logs a command-line tool's user in through a browser. The tool *initiates* a session and gets two codes. The person
opens a page with the login code; the page's backend *completes* the session. The tool, which has been *polling*,
receives the refresh token, once.

Every path under `/api/v1` is served under `/api/latest` too. Every header that starts with `x-stack-` may be sent as
`x-hexclave-` instead (where both come, `x-stack-` wins), and every such header of an answer comes in both spellings.

With `x-stack-override-error-status: true` a 4xx answer is sent with status 200; that is why 200 lists the bodies of
errors. `x-stack-actual-status` has the real one.
"""

_OAUTH_STRUCTS = (
    DeviceAuthorization,
    TokenResponse,
    BroughtTokens,
    Active,
    Inactive,
    ErrorBody,
    metadata.Metadata,
    metadata.KeySet,
)
_AFTER_LOGIN_STRUCTS = (
    *(*token_endpoint.STRUCTS, *me.STRUCTS, *current.STRUCTS),
    *(*sessions.STRUCTS, *anonymous.STRUCTS),
)
_STRUCTS = (
    *(*initiate.STRUCTS, *poll.STRUCTS, *complete.STRUCTS, *cancel.STRUCTS),
    *(Health, *_OAUTH_STRUCTS, *_AFTER_LOGIN_STRUCTS),
)


def openapi_endpoint() -> HTTPRouteHandler:
    """Return Litestar's handler of the document."""
    body = document()

    @get(["/schema", "/schema/openapi.json"])
    async def openapi() -> ASGIResponse:
        return ASGIResponse(body=body)

    return openapi


def document() -> bytes:
    """Return the document in JSON."""
    described = OpenAPI(
        openapi="3.1.0",
        info=Info(
            title="login-relay",
            version=version("login-relay"),
            description=DESCRIPTION,
            license=License(name="Apache License 2.0", identifier="Apache-2.0"),
        ),
        servers=[Server(url="/")],
        tags=[
            Tag(name="login", description="One login."),
            Tag(name="oauth", description="The same for any OAuth client (RFC 8628)."),
            Tag(name="sessions", description="What comes after a login."),
            Tag(name="events", description="All logins of a project."),
            Tag(name="health", description="For operators."),
        ],
        paths={
            "/api/v1/auth/cli": PathItem(post=initiate.OPERATION),
            "/api/v1/auth/cli/poll": PathItem(post=poll.OPERATION),
            "/api/v1/auth/cli/complete": PathItem(post=complete.OPERATION),
            "/api/v1/auth/cli/cancel": PathItem(post=cancel.OPERATION),
            "/api/v1/auth/cli/events": PathItem(get=events.OPERATION),
            **{f"/api/v1{path}".replace(":str", ""): _path_item(of) for path, of in after_login.OPERATIONS.items()},
            **{path: PathItem(post=operation) for path, operation in OPERATIONS.items()},
            **metadata.path_items(),
            "/health/live": PathItem(get=_health("live", "Tell whether the process runs", [])),
            "/health/ready": PathItem(get=_health("ready", "Tell whether a request could be served now", [STORE_AWAY])),
        },
        components=Components(
            schemas=known_error_schemas(),
            headers=header_components(),
            parameters=parameter_components(),
            security_schemes={**security_schemes(), **oauth.security_schemes()},
        ),
    ).to_schema()
    # msgspec describes its Structs as JSON; Litestar has no object for that.
    _, structs = msgspec.json.schema_components(_STRUCTS, ref_template="#/components/schemas/{name}")
    described["components"]["schemas"] |= structs
    return msgspec.json.encode(described)


def _path_item(operations: Mapping[Method, Operation]) -> PathItem:
    return PathItem(get=operations.get("GET"), post=operations.get("POST"), delete=operations.get("DELETE"))


def _health(operation_id: str, summary: str, unavailable: Sequence[str]) -> Operation:
    bodies = json_bodies({Health: {operation_id: {"status": operation_id}}})
    return Operation(
        operation_id=operation_id,
        tags=["health"],
        summary=summary,
        responses={"200": answer("It does.", bodies), **error_answers({}, unavailable)},
    )
