"""The answers in the OpenAPI document: bodies, headers and examples. The errors are those of `api.stack.errors`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from litestar.status_codes import HTTP_429_TOO_MANY_REQUESTS

from api.request.note import REQUEST_ID_PATTERN
from api.stack.errors import (
    DEFECT,
    KNOWN_ERRORS,
    TOO_LARGE,
    TOO_SLOW,
)
from api.stack.headers import spellings

Json = dict[str, Any]

REQUEST_ID: Json = {"type": "string", "pattern": f"^{REQUEST_ID_PATTERN}$"}
PROJECT_ID: Json = {"type": "string", "format": "uuid", "examples": ["7f6a8a4e-52a1-4c6c-9d1f-0a8f3f1f6f52"]}
ACCESS_TYPE: Json = {"enum": ["client", "server", "admin"]}

_SESSION_ID = "0084b16ba1cbbb1e5a92d2ff3d"
EVENT_STREAM: Json = {
    "schema": {"type": "string", "description": "Server-Sent Events (HTML Standard, 9.2)."},
    "examples": {
        "the end of a login": {
            "value": ": connected\r\nid: k88AAAGbdtqoAAAA\r\n\r\n"
            "id: k88AAAGbdtrPEAAA\r\nevent: session.consumed\r\n"
            f'data: {{"specversion":"1.0","id":"{_SESSION_ID}.3","source":"login-relay","type":"session.consumed",'
            f'"subject":"{_SESSION_ID}","time":"2026-01-01T00:00:10.000Z","version":3,'
            '"data":{"project_id":"7f6a8a4e-52a1-4c6c-9d1f-0a8f3f1f6f52"}}\r\n\r\n'
        }
    },
}

_MISFIT = "The request does not fit: Expected `object`, got `array`"
_DETAILS: Mapping[str, Json] = {
    "ACCESS_TYPE_WITHOUT_PROJECT_ID": {"request_type": ACCESS_TYPE},
    "CURRENT_PROJECT_NOT_FOUND": {"project_id": {"type": "string", "examples": ["no-such-project"]}},
    "INVALID_PUBLISHABLE_CLIENT_KEY": {"project_id": PROJECT_ID},
    "INVALID_SECRET_SERVER_KEY": {"project_id": PROJECT_ID},
    "INVALID_SUPER_SECRET_ADMIN_KEY": {"project_id": PROJECT_ID},
    "PUBLISHABLE_CLIENT_KEY_REQUIRED_FOR_PROJECT": {"project_id": PROJECT_ID},
    "ADMIN_ACCESS_TOKEN_EXPIRED": {"expired_at_millis": {"type": "integer", "examples": [1_767_226_500_000]}},
    "INSUFFICIENT_ACCESS_TYPE": {
        "actual_access_type": {"enum": ["client"]},
        "allowed_access_types": {"enum": [["server", "admin"]]},
    },
    "SCHEMA_ERROR": {"message": {"type": "string", "examples": [_MISFIT]}},
}
"""The details of known errors, by code; those that are not here have none."""

_ONLY_OF = {"INVALID_POLLING_CODE": {"poll"}, "INSUFFICIENT_ACCESS_TYPE": {"complete", "events"}}
"""The known errors of some operations; the others may come from each."""


class Bodies(NamedTuple):
    """What an answer may have as its body: JSON of these schemas (with examples), or one of these texts."""

    schemas: Sequence[Json] = ()
    examples: Mapping[str, object] = {}
    texts: Sequence[str] = ()

    def also(self, other: "Bodies") -> "Bodies":
        """Return what is in either."""
        return Bodies((*self.schemas, *other.schemas), {**self.examples, **other.examples}, (*self.texts, *other.texts))


def reference(section: str, name: str) -> Json:
    """Return a Reference Object to a component."""
    return {"$ref": f"#/components/{section}/{name}"}


_OF_ALL = ("cache-control", *spellings("request-id"), *spellings("actual-status"))
_OF_KNOWN_ERRORS = spellings("known-error")


def header_components() -> Json:
    """Return the headers of all answers."""
    described: Mapping[str, tuple[str, Json]] = {
        "request-id": ("Names the request, in the relay's logs too.", REQUEST_ID),
        "actual-status": ("The status, also where 200 was sent instead of it.", {"type": "integer"}),
        "known-error": ("The code of a known error, as in its body.", {"enum": list(KNOWN_ERRORS)}),
        "cache-control": ("Nothing here may be kept.", {"enum": ["no-store, max-age=0"]}),
        "retry-after": ("Seconds after which to send the request again.", {"type": "integer", "minimum": 1}),
        "preference-applied": ("The seconds that the answer was held for at most.", {"pattern": r"^wait=\d+$"}),
    }
    prefixed = {"request-id", "actual-status", "known-error"}
    on_some = {"known-error", "preference-applied"}
    return {
        spelling: {"description": description, "required": name not in on_some, "schema": schema}
        for name, (description, schema) in described.items()
        for spelling in (spellings(name) if name in prefixed else (name,))
    }


def known_error_schemas() -> Json:
    """Return a schema for each known error, by its code."""
    schemas = {}
    for code, (_, message) in KNOWN_ERRORS.items():
        properties: Json = {"code": {"enum": [code]}, "error": {"type": "string", "examples": [message]}}
        if code in _DETAILS:
            properties["details"] = _strict_object(_DETAILS[code])
        schemas[code] = {"title": code, **_strict_object(properties)}
    return schemas


def answer(
    description: str,
    bodies: Bodies,
    headers: Sequence[str] = (),
    *,
    overridden: Mapping[int, Bodies] | None = None,
    links: Json | None = None,
) -> Json:
    """Return a Response Object; `overridden` are the bodies of the 4xx answers that may be sent in its place."""
    for refused in (overridden or {}).values():
        bodies = bodies.also(refused)
    if overridden:
        headers = (*headers, *_OF_KNOWN_ERRORS)
    content: Json = {}
    if bodies.schemas:
        schemas = list(bodies.schemas)
        content["application/json"] = {
            "schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas},
            "examples": {name: {"value": example} for name, example in bodies.examples.items()},
        }
    if bodies.texts:
        content["text/plain"] = {
            "schema": {"type": "string", "enum": list(bodies.texts)},
            "examples": {f"text {number}": {"value": text} for number, text in enumerate(bodies.texts, 1)},
        }
    return {
        "description": description,
        "headers": {name: reference("headers", name) for name in (*_OF_ALL, *headers)},
        "content": content,
        "links": links or {},
    }


def refusals(operation_id: str, texts: Sequence[str], too_many: Sequence[str] = ()) -> Mapping[int, Bodies]:
    """Return the bodies of an operation's 4xx answers, by status; with the texts of its 400 and of its 429."""
    bodies = {
        400: _known_errors(operation_id, 400).also(Bodies(texts=texts)),
        401: _known_errors(operation_id, 401),
        408: Bodies(texts=(TOO_SLOW,)),
        413: Bodies(texts=(TOO_LARGE,)),
    }
    return {**bodies, 429: Bodies(texts=too_many)} if too_many else bodies


def error_answers(refused: Mapping[int, Bodies], unavailable: Sequence[str]) -> Json:
    """Return the Responses Object of all errors; `unavailable` are the texts of 503."""
    descriptions = {
        400: "The request is wrong.",
        401: "The caller may not do this, or did not say who it is.",
        410: "Events after Last-Event-ID have been trimmed.",
        408: "The body took too long to arrive.",
        413: "The body is too large.",
        429: "Too much was asked; not now.",
    }
    answers = {
        str(status): answer(
            descriptions[status],
            bodies,
            ("retry-after",) if status == HTTP_429_TOO_MANY_REQUESTS else _OF_KNOWN_ERRORS if bodies.schemas else (),
        )
        for status, bodies in refused.items()
    }
    answers["500"] = answer("A defect of the relay.", Bodies(texts=(DEFECT,)))
    if unavailable:
        answers["503"] = answer("Not now; try again.", Bodies(texts=unavailable), ("retry-after",))
    return answers


def _known_errors(operation_id: str, status: int) -> Bodies:
    codes = [
        code
        for code, known in KNOWN_ERRORS.items()
        if known.status == status and operation_id in _ONLY_OF.get(code, {operation_id})
    ]
    return Bodies([reference("schemas", code) for code in codes], {code: _example(code) for code in codes})


def _example(code: str) -> Json:
    body: Json = {"code": code, "error": KNOWN_ERRORS[code].message}
    if code in _DETAILS:
        body["details"] = {
            name: (schema.get("examples") or schema["enum"])[0] for name, schema in _DETAILS[code].items()
        }
    return body


def _strict_object(properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
