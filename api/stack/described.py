"""What the operations of this interface have in common in the OpenAPI document; each operation is beside its endpoint.

The endpoints read their bodies by hand, because each way to be wrong has its exact answer; so Litestar cannot derive
the document from their signatures. It is made of what the code runs on: the Structs of the bodies and the tables of
errors.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from litestar.openapi.spec import (
    Example,
    Link,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    Schema,
)
from litestar.status_codes import HTTP_429_TOO_MANY_REQUESTS

from api.stack.components import KEYS, PARAMETERS, known_error_example
from api.stack.errors import DEFECT, KNOWN_ERRORS, TOO_LARGE, TOO_SLOW
from api.stack.headers import spellings

LOGIN_CODE = "WDJB-MJHT-XKQP"
SESSION_ID = "0084b16ba1cbbb1e5a92d2ff3d"
POLLING_CODE = f"lrp_{SESSION_ID}THIS-IS-AN-EXAMPLE-AND-NO-SECRET"
CODE_VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # RFC 7636 appendix B, as is the next
CODE_CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
REFRESH_TOKEN = "the-refresh-token"  # noqa: S105 - an example
ACCESS_TOKEN = "a-signed-access-token"  # noqa: S105 - an example

_OF_KNOWN_ERRORS = spellings("known-error")
_OF_ALL = ("cache-control", *spellings("request-id"), *spellings("actual-status"))
_OF_SOME_OPERATIONS = (
    *("INVALID_POLLING_CODE", "INSUFFICIENT_ACCESS_TYPE", "IDEMPOTENCY_KEY_REUSED"),
    *("UNPARSABLE_ACCESS_TOKEN", "ACCESS_TOKEN_EXPIRED", "USER_AUTHENTICATION_REQUIRED"),
    *("REFRESH_TOKEN_NOT_FOUND_OR_EXPIRED", "CANNOT_GET_OWN_USER_WITHOUT_USER", "CANNOT_DELETE_CURRENT_SESSION"),
    "INVALID_OAUTH_CLIENT_ID_OR_SECRET",
)
"""Known errors that an operation has only if it says so; the others may come from each."""

_DESCRIPTIONS = {
    400: "The request is wrong.",
    401: "The caller may not do this, or did not say who it is.",
    403: "The user may not do this to others.",
    404: "There is no such thing, or it is off.",
    408: "The body took too long to arrive.",
    410: "Events after Last-Event-ID have been trimmed.",
    413: "The body is too large.",
    422: "The Idempotency-Key came with another request before.",
    429: "Too much was asked; not now.",
}

IDEMPOTENCY_KEY = Schema(type=OpenAPIType.STRING, min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")


class Bodies(NamedTuple):
    """What an answer may have as its body: JSON of these schemas (with examples), or one of these texts."""

    schemas: Sequence[Reference] = ()
    examples: Mapping[str, object] = {}
    texts: Sequence[str] = ()

    def also(self, other: "Bodies") -> "Bodies":
        """Return what is in either."""
        return Bodies((*self.schemas, *other.schemas), {**self.examples, **other.examples}, (*self.texts, *other.texts))

    def content(self) -> dict[str, OpenAPIMediaType]:
        """Return them by media type."""
        content = {}
        if self.schemas:
            schemas = list(self.schemas)
            content["application/json"] = OpenAPIMediaType(
                schemas[0] if len(schemas) == 1 else Schema(any_of=schemas), examples=_examples(self.examples)
            )
        if self.texts:
            content["text/plain"] = OpenAPIMediaType(
                Schema(type=OpenAPIType.STRING, enum=list(self.texts)),
                examples=_examples({f"text {number}": text for number, text in enumerate(self.texts, 1)}),
            )
        return content


Refused = Mapping[int, Bodies]
"""The bodies of 4xx answers, by status."""


def json_bodies(bodies: Mapping[type[msgspec.Struct], Mapping[str, object]]) -> Bodies:
    """Return JSON bodies, each with its examples by name."""
    examples = {name: example for named in bodies.values() for name, example in named.items()}
    return Bodies([_schema(struct.__name__) for struct in bodies], examples)


def json_request(
    struct: type[msgspec.Struct],
    examples: Mapping[str, object],
    *,
    required: bool = True,
    dependent_required: dict[str, Sequence[str]] | None = None,
) -> RequestBody:
    """Return the description of a body; `dependent_required` (JSON Schema) is what no Struct can say."""
    schema: Reference | Schema = _schema(struct.__name__)
    if dependent_required:
        schema = Schema(all_of=[schema], dependent_required=dependent_required)
    return RequestBody(
        content={"application/json": OpenAPIMediaType(schema, examples=_examples(examples))}, required=required
    )


def answer(
    description: str,
    bodies: Bodies,
    headers: Sequence[str] = (),
    *,
    overridden: Refused | None = None,
    links: dict[str, Link | Reference] | None = None,
) -> OpenAPIResponse:
    """Return the description of an answer; `overridden` are the 4xx answers that may be sent in its place."""
    for refused in (overridden or {}).values():
        bodies = bodies.also(refused)
    if overridden:
        headers = (*headers, *_OF_KNOWN_ERRORS)
    return OpenAPIResponse(
        description,
        headers={name: Reference(f"#/components/headers/{name}") for name in (*_OF_ALL, *headers)},
        content=bodies.content(),
        links=links or {},
    )


def refusals(
    own: Sequence[str] = (),
    *,
    texts: Sequence[str] = (),
    forbidden: Sequence[str] = (),
    missing: Sequence[str] = (),
    reused: Sequence[str] = (),
    too_many: Sequence[str] = (),
) -> Refused:
    """Return how an operation may be refused: its own known errors, and the texts of its 400, 403, 404, 422 and 429."""
    bodies = {
        400: _known_errors(400, own).also(Bodies(texts=texts)),
        401: _known_errors(401, own),
        403: Bodies(texts=forbidden),
        404: Bodies(texts=missing),
        408: Bodies(texts=(TOO_SLOW,)),
        413: Bodies(texts=(TOO_LARGE,)),
        422: _known_errors(422, own).also(Bodies(texts=reused)),
        429: Bodies(texts=too_many),
    }
    return {status: some for status, some in bodies.items() if some.schemas or some.texts}


def error_answers(refused: Refused, unavailable: Sequence[str]) -> dict[str, OpenAPIResponse]:
    """Return the descriptions of all errors by status; `unavailable` are the texts of 503."""
    answers = {}
    for status, bodies in refused.items():
        headers = _OF_KNOWN_ERRORS if bodies.schemas else ()
        if status == HTTP_429_TOO_MANY_REQUESTS:
            headers = ("retry-after",)
        answers[str(status)] = answer(_DESCRIPTIONS[status], bodies, headers)
    answers["500"] = answer("A defect of the relay.", Bodies(texts=(DEFECT,)))
    if unavailable:
        answers["503"] = answer("Not now; try again.", Bodies(texts=unavailable), ("retry-after",))
    return answers


def operation(
    operation_id: str,
    summary: str,
    description: str,
    answers: Mapping[str, OpenAPIResponse],
    *parameters: Parameter,
    body: RequestBody | None = None,
    tag: str = "login",
) -> Operation:
    """Return the description of an operation that checks who asks."""
    return Operation(
        operation_id=operation_id,
        tags=[tag],
        summary=summary,
        description=description,
        security=[{name: []} for name in KEYS],
        parameters=[*(Reference(f"#/components/parameters/{name}") for name in PARAMETERS), *parameters],
        request_body=body,
        responses=dict(answers),
    )


def header_parameter(name: str, description: str, schema: Schema) -> Parameter:
    """Return the description of a header that a request may have."""
    return Parameter(name, "header", schema, description)


def _schema(name: str) -> Reference:
    return Reference(f"#/components/schemas/{name}")


def _examples(examples: Mapping[str, object]) -> dict[str, Example | Reference]:
    return {name: Example(value=example) for name, example in examples.items()}


def _known_errors(status: int, own: Sequence[str]) -> Bodies:
    codes = [
        code
        for code, known in KNOWN_ERRORS.items()
        if known.status == status and (code in own or code not in _OF_SOME_OPERATIONS)
    ]
    return Bodies([_schema(code) for code in codes], {code: known_error_example(code) for code in codes})
