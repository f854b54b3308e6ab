"""What the operations of this interface have in common in the OpenAPI document; each one is beside its endpoint."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from litestar.openapi.spec import (
    Example,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    Schema,
    SecurityScheme,
)

from api.oauth.errors import ERRORS, NOTHING_HERE, OFF, TOO_LARGE, TOO_MANY_LOGINS, TOO_MANY_WRONG_CODES, TOO_SLOW, Word
from api.oauth.form import MEDIA_TYPE

DEVICE_CODE = "lrd_0084b16ba1cbbb1e5a92d2ff3dTHIS-IS-AN-EXAMPLE-AND-NO-SECRET"
CLIENT_ID = "7f6a8a4e-52a1-4c6c-9d1f-0a8f3f1f6f52"
ACCESS_TOKEN = "a-signed-access-token"  # noqa: S105 - an example
REFRESH_TOKEN = "lrt_an-example-and-no-secret"  # noqa: S105 - an example

_MEANINGS = {
    400: "Refused; the word says why.",
    401: "There is no such client, or its secret is wrong.",
    404: "OAuth is off.",
    408: "The body took too long to arrive.",
    413: "The body is too large.",
    429: "Too much was asked; not now.",
    500: "A defect of the relay.",
    503: "Not now; try again.",
}
_MORE: dict[int, tuple[Word, str | None]] = {
    404: ("invalid_request", None),
    408: ("invalid_request", TOO_SLOW),
    413: ("invalid_request", TOO_LARGE),
    500: ("server_error", None),
    503: ("temporarily_unavailable", None),
}
"""What every operation may answer beside its own errors."""
_TOO_MANY = {
    "invalid_grant": TOO_MANY_WRONG_CODES,
    "temporarily_unavailable": TOO_MANY_LOGINS,
}


class FormField(NamedTuple):
    """A parameter of a form."""

    name: str
    description: str
    required: bool = False
    example: str | None = None


def parameter(name: str, description: str, *, required: bool = False, example: str | None = None) -> FormField:
    """Return the description of a parameter."""
    return FormField(name, description, required, example)


def operation(  # noqa: PLR0913 - what an operation is
    operation_id: str,
    summary: str,
    description: str,
    success: type[msgspec.Struct] | Sequence[type[msgspec.Struct]] | None,
    examples: dict[str, object],
    fields: Sequence[FormField],
    words: Sequence[Word],
    *,
    too_many: Word | None = None,
    headers: Sequence[Parameter] = (),
) -> Operation:
    """Return the description of an operation: `success` are the Structs of its 200 (None: it has no body)."""
    return Operation(
        operation_id=operation_id,
        tags=["oauth"],
        summary=summary,
        description=description,
        security=[{"oauth-client-secret": []}, {}],
        parameters=[*headers],
        request_body=_form([*fields, *_CLIENT]),
        responses={
            "200": OpenAPIResponse("Done.", content=_bodies(success, examples)),
            **_errors(words, too_many),
        },
    )


def public_document(operation_id: str, summary: str, struct: type[msgspec.Struct], example: object) -> Operation:
    """Return the description of a document of a project that anybody may read, and cache."""
    project = Parameter("project_id", "path", Schema(type=OpenAPIType.STRING), "The project.", required=True)
    off = _error(404, {"off": ("invalid_request", OFF), "nothing": ("invalid_request", NOTHING_HERE)})
    return Operation(
        operation_id=operation_id,
        tags=["oauth"],
        summary=summary,
        parameters=[project],
        responses={
            "200": OpenAPIResponse("The document.", content=_bodies(struct, {"document": example})),
            "404": off,
            **{status: answer for status, answer in _errors((), None).items() if status in {"500", "503"}},
        },
    )


_CLIENT = (
    FormField("client_id", "The project's id, unless it is the user of Basic credentials.", example=CLIENT_ID),
    FormField("client_secret", "The project's publishable key; public clients send none."),
)


def security_schemes() -> dict[str, SecurityScheme | Reference]:
    """Return how clients say who they are, and how a tool gets tokens."""
    return {
        "oauth-client-secret": SecurityScheme(
            "http", "The client's id and its secret, which is empty for a public client.", scheme="basic"
        ),
    }


def _form(fields: Sequence[FormField]) -> RequestBody:
    schema = Schema(
        type=OpenAPIType.OBJECT,
        properties={field.name: Schema(type=OpenAPIType.STRING, description=field.description) for field in fields},
        required=[field.name for field in fields if field.required] or None,
    )
    example = {field.name: field.example for field in fields if field.example is not None}
    return RequestBody(
        content={MEDIA_TYPE: OpenAPIMediaType(schema, examples={"form": Example(value=example)})}, required=True
    )


def _bodies(
    success: type[msgspec.Struct] | Sequence[type[msgspec.Struct]] | None, examples: dict[str, object]
) -> dict[str, OpenAPIMediaType]:
    if success is None:
        return {}
    structs = [success] if isinstance(success, type) else success
    schemas: list[Reference | Schema] = [Reference(f"#/components/schemas/{struct.__name__}") for struct in structs]
    schema = schemas[0] if len(schemas) == 1 else Schema(any_of=schemas)
    return {
        "application/json": OpenAPIMediaType(
            schema, examples={name: Example(value=example) for name, example in examples.items()}
        )
    }


def _errors(words: Sequence[Word], too_many: Word | None) -> dict[str, OpenAPIResponse]:
    found: dict[int, dict[str, tuple[Word, str | None]]] = {}
    for word in words:
        found.setdefault(ERRORS[word].status, {})[word] = (word, None)
    for status, more in _MORE.items():
        found.setdefault(status, {})["always"] = more
    if too_many is not None:
        found[429] = {too_many: (too_many, _TOO_MANY[too_many])}
    return {str(status): _error(status, rows) for status, rows in sorted(found.items())}


def _error(status: int, rows: dict[str, tuple[Word, str | None]]) -> OpenAPIResponse:
    examples: dict[str, Example | Reference] = {
        name: Example(value={"error": word, "error_description": text or ERRORS[word].description})
        for name, (word, text) in rows.items()
    }
    body = OpenAPIMediaType(Reference("#/components/schemas/ErrorBody"), examples=examples)
    return OpenAPIResponse(_MEANINGS[status], content={"application/json": body})
