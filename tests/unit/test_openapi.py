import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from litestar.routes import HTTPRoute
from openapi_spec_validator import validate

from api.app import create_app
from api.openapi import document
from api.stack.errors import KNOWN_ERRORS
from api.stack.headers import PREFIXES
from runtime.settings import Settings

DOCUMENT: dict[str, Any] = json.loads(document())


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each operation with its path and method."""
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def media_types() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each body, of requests and answers, with the place where it is described."""
    for _, _, operation in operations():
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{operation['operationId']} request {media_type}", content
        for status, answer in operation["responses"].items():
            for media_type, content in answer["content"].items():
                yield f"{operation['operationId']} {status} {media_type}", content


def test_document_is_valid_openapi() -> None:
    """It follows OpenAPI 3.1, and every reference resolves."""
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1.")


@pytest.mark.parametrize("content", [pytest.param(content, id=place) for place, content in media_types()])
def test_every_body_has_examples_that_fit_its_schema(content: dict[str, Any]) -> None:
    """A developer who copies an example sends, or expects, a valid body."""
    validator = Draft202012Validator({**content["schema"], "components": DOCUMENT["components"]})
    examples = content["examples"].values()
    assert examples
    for example in examples:
        validator.validate(example["value"])


def test_every_route_is_described() -> None:
    """What the API serves under its first prefix is in the document, and nothing else; the second is an alias."""
    app = create_app(Settings(redis_url="redis://127.0.0.1:1/0"))
    served = {
        (route.path.replace(":str}", "}"), method.lower())
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method in route.methods
        if method != "OPTIONS" and not route.path.startswith("/schema")
    }
    described = {(path, method) for path, method, _ in operations()}
    aliased = [(path, method) for path, method in described if path.startswith(("/api/v1/auth/", "/api/v1/users/"))]
    aliases = {(path.replace("/api/v1/", "/api/latest/"), method) for path, method in aliased}
    assert served == described | aliases


def test_every_known_error_is_an_answer_of_some_operation() -> None:
    """With the status of its row, its public sentence in an example, and its code in the header."""
    for code, known in KNOWN_ERRORS.items():
        examples = [
            answer["content"]["application/json"]["examples"][code]["value"]
            for _, _, operation in operations()
            for status, answer in operation["responses"].items()
            if status == str(known.status) and code in answer["content"].get("application/json", {}).get("examples", {})
        ]
        assert examples, code
        assert all(example["error"] == known.message for example in examples)
    headers = DOCUMENT["components"]["headers"]
    for prefix in PREFIXES:
        assert headers[f"{prefix}known-error"]["schema"]["enum"] == list(KNOWN_ERRORS)


def test_every_request_header_is_described_in_both_spellings() -> None:
    """Clients find the spelling that they use."""
    components = DOCUMENT["components"]
    described = {*components["parameters"], *components["securitySchemes"]} - {"oauth-client-secret"}
    suffixes = {name.removeprefix(prefix) for name in described for prefix in PREFIXES if name.startswith(prefix)}
    assert suffixes == {
        *("project-id", "access-type", "override-error-status", "request-id", "admin-access-token"),
        *("publishable-client-key", "secret-server-key", "super-secret-admin-key"),
    }
    assert described == {prefix + suffix for prefix in PREFIXES for suffix in suffixes}


@pytest.mark.parametrize("struct", ["InitiateRequest", "PollRequest", "CompleteRequest"])
def test_request_bodies_take_no_unknown_field_and_say_what_each_is_for(struct: str) -> None:
    """The API refuses what is not described."""
    schema = DOCUMENT["components"]["schemas"][struct]
    assert schema["additionalProperties"] is False
    assert all(field["description"] for field in schema["properties"].values())
