"""The OpenAPI 3.1 document, served at `/schema`.

The endpoints read their bodies by hand, because each way to be wrong has its exact answer; so Litestar cannot derive
the document from their signatures. It is put together from what the code runs on: the Structs of the bodies and the
tables of errors. The tests hold the answers of a running service against it.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version

import msgspec
from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from api.request.health import Health
from api.stack.complete import (
    Checked,
    Completed,
    CompleteRequest,
    Minted,
)
from api.stack.described import (
    ACCESS_TYPE,
    EVENT_STREAM,
    PROJECT_ID,
    REQUEST_ID,
    Bodies,
    Json,
    answer,
    error_answers,
    header_components,
    known_error_schemas,
    reference,
    refusals,
)
from api.stack.errors import (
    ANONYMOUS_SESSIONS,
    BUSY,
    EVENTS_GONE,
    INVALID_LOGIN_CODE,
    NO_ANONYMOUS_SESSION,
    RECORDED,
    STORE_AWAY,
    TOO_MANY_SESSIONS,
    TOO_MANY_STREAMS,
    TOO_MANY_WRONG_CODES,
    TOO_SOON,
)
from api.stack.headers import spellings
from api.stack.initiate import InitiateRequest, InitiateResponse
from api.stack.poll import PollRequest, PollStatus, PollSuccess

DESCRIPTION = """\
Logs a command-line tool's user in through a browser. The tool *initiates* a session and gets two codes. The person
opens a page with the login code; the page's backend *completes* the session. The tool, which has been *polling*,
receives the refresh token, once.

Every path under `/api/v1` is served under `/api/latest` too. Every header that starts with `x-stack-` may be sent as
`x-hexclave-` instead (where both come, `x-stack-` wins), and every such header of an answer comes in both spellings.

With `x-stack-override-error-status: true` a 4xx answer is sent with status 200; that is why 200 lists the bodies of
errors. `x-stack-actual-status` has the real one.
"""

_LOGIN_CODE = "WDJB-MJHT-XKQP"
_SESSION_ID = "0084b16ba1cbbb1e5a92d2ff3d"
_POLLING_CODE = f"lrp_{_SESSION_ID}THIS-IS-AN-EXAMPLE-AND-NO-SECRET"
_CODE_VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # RFC 7636 appendix B, as is the next
_CODE_CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
_REFRESH_TOKEN = "the refresh token"  # noqa: S105 - an example

_PARAMETERS: Mapping[str, tuple[str, Json]] = {
    "project-id": ("The project. Required, in one spelling.", PROJECT_ID),
    "access-type": ("Whose key is sent. Absent: the strongest key that is sent decides.", ACCESS_TYPE),
    "override-error-status": ("`true`: send a 4xx answer with status 200.", {"type": "string"}),
    "request-id": (
        "The caller's name for the request, also as `x-request-id`; ignored unless fit to be logged.",
        REQUEST_ID,
    ),
}
_KEYS = {
    "publishable-client-key": "Client access. It ships inside tools and is no secret.",
    "secret-server-key": "Server access.",
    "super-secret-admin-key": "Admin access.",
    "admin-access-token": "Admin access: a JWT of an issuer that the operator trusts, for the projects that it lists.",
}
_STRUCTS = (
    *(InitiateRequest, InitiateResponse, PollRequest, PollStatus, PollSuccess),
    *(CompleteRequest, Minted, Completed, Checked, Health),
)


def openapi_endpoint() -> HTTPRouteHandler:
    """Return the endpoint."""
    body = msgspec.json.encode(document())

    @get(["/schema", "/schema/openapi.json"])
    async def openapi() -> ASGIResponse:
        return ASGIResponse(body=body)

    return openapi


def document() -> Json:
    """Return the document."""
    _, schemas = msgspec.json.schema_components(_STRUCTS, ref_template="#/components/schemas/{name}")
    # What no Struct can say, and initiate checks.
    schemas[InitiateRequest.__name__]["dependentRequired"] = {"code_challenge_method": ["code_challenge"]}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "login-relay",
            "version": version("login-relay"),
            "description": DESCRIPTION,
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "login", "description": "One login."},
            {"name": "events", "description": "All logins of a project."},
            {"name": "health", "description": "For operators."},
        ],
        "paths": {
            "/api/v1/auth/cli": {"post": _initiate()},
            "/api/v1/auth/cli/poll": {"post": _poll()},
            "/api/v1/auth/cli/complete": {"post": _complete()},
            "/api/v1/auth/cli/events": {"get": _events()},
            "/health/live": {"get": _health("live", "Tell whether the process runs", [])},
            "/health/ready": {"get": _health("ready", "Tell whether a request could be served now", [STORE_AWAY])},
        },
        "components": {
            "schemas": {**schemas, **known_error_schemas()},
            "headers": header_components(),
            "parameters": {
                name: {"name": name, "in": "header", "description": description, "schema": schema}
                for suffix, (description, schema) in _PARAMETERS.items()
                for name in spellings(suffix)
            },
            "securitySchemes": {
                name: {"type": "apiKey", "in": "header", "name": name, "description": description}
                for suffix, description in _KEYS.items()
                for name in spellings(suffix)
            },
        },
    }


def _initiate() -> Json:
    session = {
        "polling_code": _POLLING_CODE,
        "login_code": _LOGIN_CODE,
        "expires_at": "2026-01-01T00:15:00.000Z",
        "interval": 2,
        "session_id": _SESSION_ID,
    }
    refused = refusals("initiate", [ANONYMOUS_SESSIONS], [TOO_MANY_SESSIONS])
    return _login_operation(
        "initiate",
        "Start a login",
        "Client access or higher.",
        _request_body(
            InitiateRequest,
            {
                "defaults": {},
                "ten minutes": {"expires_in_millis": 600_000},
                "introduced": {"client_name": "acme", "client_version": "1.4.2", "hostname": "build-7"},
                "bound": {"code_challenge": _CODE_CHALLENGE, "code_challenge_method": "S256"},
            },
            required=False,
        ),
        {
            "200": answer(
                "The session is pending.",
                _json({InitiateResponse: {"session": session}}),
                overridden=refused,
                links={
                    "poll": {
                        "operationId": "poll",
                        "requestBody": {"polling_code": "$response.body#/polling_code"},
                    },
                    "complete": {
                        "operationId": "complete",
                        "requestBody": {"login_code": "$response.body#/login_code"},
                    },
                },
            ),
            **error_answers(refused, [STORE_AWAY]),
        },
    )


def _poll() -> Json:
    statuses = {status: {"status": status} for status in ("waiting", "used", "expired")}
    success = {"success": {"status": "success", "refresh_token": _REFRESH_TOKEN}}
    prefer = {
        "name": "Prefer",
        "in": "header",
        "description": "`wait=N` (RFC 7240): hold a pending poll until the session changes or N seconds are over.",
        "schema": {"type": "string", "examples": ["wait=5"]},
    }
    applied = ["preference-applied"]
    refused = refusals("poll", [], [TOO_MANY_WRONG_CODES, TOO_SOON])
    return _login_operation(
        "poll",
        "Ask whether a login is completed, and take its refresh token",
        "Client access or higher. Exactly one poll of a session gets the token.",
        _request_body(
            PollRequest,
            {
                "poll": {"polling_code": _POLLING_CODE},
                "bound": {"polling_code": _POLLING_CODE, "code_verifier": _CODE_VERIFIER},
            },
        ),
        {
            "200": answer(
                "There is no token for this poll.", _json({PollStatus: statuses}), applied, overridden=refused
            ),
            "201": answer("The token, for this poll only.", _json({PollSuccess: success}), applied),
            **error_answers(refused, [STORE_AWAY]),
        },
        prefer,
        _idempotency_key("Repeats the 201 for a minute, for whoever sends the same polling code and key again."),
    )


def _complete() -> Json:
    refused = refusals("complete", [INVALID_LOGIN_CODE, NO_ANONYMOUS_SESSION], [TOO_MANY_WRONG_CODES])
    done: dict[type[msgspec.Struct], dict[str, Json]] = {
        Minted: {"minted token": {}},
        Completed: {"own token": {"success": True}},
        Checked: {"checked": {"cli_session_state": "none"}},
    }
    return _login_operation(
        "complete",
        "Complete a login",
        "Server access or higher; client access where the project allows it. 200 means done, not queued.",
        _request_body(
            CompleteRequest,
            {
                "minted token": {"login_code": _LOGIN_CODE},
                "own token": {"login_code": _LOGIN_CODE, "refresh_token": _REFRESH_TOKEN},
                "for whom": {"login_code": _LOGIN_CODE, "subject": "user:42"},
                "check": {"login_code": _LOGIN_CODE, "mode": "check"},
            },
        ),
        {
            "200": answer("The login is completed, or can be (`check`).", _json(done), overridden=refused),
            **error_answers(refused, [RECORDED, BUSY, STORE_AWAY]),
        },
        _idempotency_key("Repeats the answer for a day, for whoever sends the same login code and key again."),
    )


def _events() -> Json:
    last_event_id = {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "The last id that the client received: go on exactly after it. Absent: begin now.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
    }
    refused = {**refusals("events", [], [TOO_MANY_STREAMS]), 410: Bodies(texts=(EVENTS_GONE,))}
    stream = answer("The events of the project, from now or from `Last-Event-ID` on.", Bodies(), overridden=refused)
    stream["content"]["text/event-stream"] = EVENT_STREAM
    operation = _project_operation(
        "events",
        "Hear what happens to logins",
        "Server access or higher. Server-Sent Events without end: `event` is the type, `data` a CloudEvent in JSON "
        "(docs/events.schema.json describes each type), `id` a place in all partitions' events. A comment every 15 "
        "seconds keeps the connection open and may bring a newer id. Who reads too slowly is disconnected.",
        {"200": stream, **error_answers(refused, [STORE_AWAY])},
        last_event_id,
    )
    return operation | {"tags": ["events"]}


def _login_operation(
    operation_id: str, summary: str, description: str, body: Json, answers: Json, *parameters: Json
) -> Json:
    operation = _project_operation(operation_id, summary, description, answers, *parameters)
    return operation | {"tags": ["login"], "requestBody": body}


def _project_operation(operation_id: str, summary: str, description: str, answers: Json, *parameters: Json) -> Json:
    return {
        "operationId": operation_id,
        "summary": summary,
        "description": description,
        "security": [{name: []} for suffix in _KEYS for name in spellings(suffix)],
        "parameters": [
            *(reference("parameters", name) for suffix in _PARAMETERS for name in spellings(suffix)),
            *parameters,
        ],
        "responses": answers,
    }


def _health(operation_id: str, summary: str, unavailable: Sequence[str]) -> Json:
    bodies = _json({Health: {operation_id: {"status": operation_id}}})
    return {
        "operationId": operation_id,
        "tags": ["health"],
        "summary": summary,
        "responses": {"200": answer("It does.", bodies), **error_answers({}, unavailable)},
    }


def _request_body(struct: type[msgspec.Struct], examples: Mapping[str, Json], *, required: bool = True) -> Json:
    return {
        "required": required,
        "content": {
            "application/json": {
                "schema": reference("schemas", struct.__name__),
                "examples": {name: {"value": example} for name, example in examples.items()},
            }
        },
    }


def _json(bodies: Mapping[type[msgspec.Struct], Mapping[str, Json]]) -> Bodies:
    """Return JSON bodies, each with its examples by name."""
    examples = {name: example for named in bodies.values() for name, example in named.items()}
    return Bodies([reference("schemas", struct.__name__) for struct in bodies], examples)


def _idempotency_key(description: str) -> Json:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "description": description,
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[\x21-\x7e]+$"},
    }
