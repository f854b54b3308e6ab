"""What the OpenAPI document says once for all operations of this interface: headers, keys and known errors."""

from litestar.openapi.spec import (
    OpenAPIFormat,
    OpenAPIHeader,
    OpenAPIType,
    Parameter,
    Reference,
    Schema,
    SecurityScheme,
)

from api.request.note import REQUEST_ID_PATTERN
from api.stack.errors import KNOWN_ERRORS
from api.stack.headers import spellings

_STRING = Schema(type=OpenAPIType.STRING)
_REQUEST_ID = Schema(type=OpenAPIType.STRING, pattern=f"^{REQUEST_ID_PATTERN}$")
_PROJECT_ID = Schema(
    type=OpenAPIType.STRING, format=OpenAPIFormat.UUID, examples=["7f6a8a4e-52a1-4c6c-9d1f-0a8f3f1f6f52"]
)
_ACCESS_TYPE = Schema(enum=["client", "server", "admin"])

_PARAMETERS = {
    "project-id": ("The project. Required, in one spelling.", _PROJECT_ID),
    "access-type": ("Whose key is sent. Absent: the strongest key that is sent decides.", _ACCESS_TYPE),
    "override-error-status": ("`true`: send a 4xx answer with status 200.", _STRING),
    "request-id": (
        "The caller's name for the request, also as `x-request-id`; ignored unless fit to be logged.",
        _REQUEST_ID,
    ),
}
_KEYS = {
    "publishable-client-key": "Client access. It ships inside tools and is no secret.",
    "secret-server-key": "Server access.",
    "super-secret-admin-key": "Admin access.",
    "admin-access-token": "Admin access: a JWT of an issuer that the operator trusts, for the projects that it lists.",
}
_HEADERS = {
    **dict.fromkeys(spellings("request-id"), ("Names the request, in the relay's logs too.", _REQUEST_ID)),
    **dict.fromkeys(
        spellings("actual-status"),
        ("The status, also where 200 was sent instead of it.", Schema(type=OpenAPIType.INTEGER)),
    ),
    **dict.fromkeys(
        spellings("known-error"), ("The code of a known error, as in its body.", Schema(enum=list(KNOWN_ERRORS)))
    ),
    "cache-control": ("Nothing here may be kept.", Schema(enum=["no-store, max-age=0"])),
    "retry-after": ("Seconds after which to send the request again.", Schema(type=OpenAPIType.INTEGER, minimum=1)),
    "preference-applied": ("The seconds that the answer was held for at most.", Schema(pattern=r"^wait=\d+$")),
}
"""Of answers."""
_OF_SOME = (*spellings("known-error"), "preference-applied")
"""Not of every answer that may have them."""

_MISFIT = "The request does not fit: Expected `object`, got `array`"
_DETAILS = {
    "ACCESS_TYPE_WITHOUT_PROJECT_ID": {"request_type": _ACCESS_TYPE},
    "CURRENT_PROJECT_NOT_FOUND": {"project_id": Schema(type=OpenAPIType.STRING, examples=["no-such-project"])},
    "INVALID_PUBLISHABLE_CLIENT_KEY": {"project_id": _PROJECT_ID},
    "INVALID_SECRET_SERVER_KEY": {"project_id": _PROJECT_ID},
    "INVALID_SUPER_SECRET_ADMIN_KEY": {"project_id": _PROJECT_ID},
    "PUBLISHABLE_CLIENT_KEY_REQUIRED_FOR_PROJECT": {"project_id": _PROJECT_ID},
    "ADMIN_ACCESS_TOKEN_EXPIRED": {"expired_at_millis": Schema(type=OpenAPIType.INTEGER, examples=[1_767_226_500_000])},
    "INSUFFICIENT_ACCESS_TYPE": {
        "actual_access_type": Schema(enum=["client"]),
        "allowed_access_types": Schema(enum=[["server", "admin"]]),
    },
    "ACCESS_TOKEN_EXPIRED": {"expired_at_millis": Schema(type=OpenAPIType.INTEGER, examples=[1_767_226_500_000])},
    "INVALID_OAUTH_CLIENT_ID_OR_SECRET": {"client_id": Schema(type=OpenAPIType.STRING, examples=["no-such-project"])},
    "SCHEMA_ERROR": {"message": Schema(type=OpenAPIType.STRING, examples=[_MISFIT])},
}
"""The details of known errors, by code; those that are not here have none."""

PARAMETERS = tuple(spelling for name in _PARAMETERS for spelling in spellings(name))
KEYS = tuple(spelling for name in _KEYS for spelling in spellings(name))


def header_components() -> dict[str, OpenAPIHeader | Reference]:
    """Return the headers of all answers."""
    return {
        name: OpenAPIHeader(schema=schema, description=description, required=name not in _OF_SOME)
        for name, (description, schema) in _HEADERS.items()
    }


def parameter_components() -> dict[str, Parameter | Reference]:
    """Return the headers that every request may have, apart from the keys."""
    return {
        spelling: Parameter(spelling, "header", schema, description)
        for name, (description, schema) in _PARAMETERS.items()
        for spelling in spellings(name)
    }


def security_schemes() -> dict[str, SecurityScheme | Reference]:
    """Return the keys."""
    return {
        spelling: SecurityScheme("apiKey", description, spelling, "header")
        for name, description in _KEYS.items()
        for spelling in spellings(name)
    }


def known_error_schemas() -> dict[str, Schema]:
    """Return a schema for each known error, by its code."""
    schemas = {}
    for code, (_, message) in KNOWN_ERRORS.items():
        properties: dict[str, Reference | Schema] = {
            "code": Schema(enum=[code]),
            "error": Schema(type=OpenAPIType.STRING, examples=[message]),
        }
        if code in _DETAILS:
            properties["details"] = _strict_object({**_DETAILS[code]})
        schemas[code] = _strict_object(properties, title=code)
    return schemas


def known_error_example(code: str) -> dict[str, object]:
    """Return a body with the public sentence of a known error."""
    body: dict[str, object] = {"code": code, "error": KNOWN_ERRORS[code].message}
    if code in _DETAILS:
        body["details"] = {
            name: (schema.examples or schema.enum or [None])[0] for name, schema in _DETAILS[code].items()
        }
    return body


def _strict_object(properties: dict[str, Reference | Schema], title: str | None = None) -> Schema:
    return Schema(
        title=title,
        type=OpenAPIType.OBJECT,
        properties=properties,
        required=list(properties),
        additional_properties=False,
    )
