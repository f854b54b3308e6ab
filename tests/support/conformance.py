"""Checks every answer that the tests get against the OpenAPI document of the service."""

import json
import re
from typing import Any

import httpx
from jsonschema import Draft202012Validator, FormatChecker

from api.openapi import document
from api.stack.headers import PREFIXES

DOCUMENT: dict[str, Any] = json.loads(document())
_REQUEST_ID = re.compile(r"[0-9a-f]{32}")


def check(response: httpx.Response) -> None:
    """Fail unless the answer is one that the document describes; an httpx event hook."""
    response.read()
    _check_headers_of_all(response)
    path = response.request.url.path.replace("/api/latest/", "/api/v1/")
    operation = _path_item(path).get(response.request.method.lower())
    if operation is None:
        return
    where = f"{operation['operationId']} {response.status_code}"
    answer = operation["responses"].get(str(response.status_code))
    assert answer is not None, f"{where} is not documented: {response.text}"
    media_type = response.headers["content-type"]
    content = answer["content"].get(media_type.removesuffix("; charset=utf-8"))
    assert content is not None, f"{where} is not documented as {media_type}: {response.text}"
    body = response.json() if media_type == "application/json" else response.text
    fits(body, content["schema"], f"{where}: {response.text}")
    for name, reference in answer["headers"].items():
        header = DOCUMENT["components"]["headers"][reference["$ref"].rpartition("/")[2]]
        value: str | int | None = response.headers.get(name)
        if value is None:
            assert not header["required"], f"{where}: {name} is missing"
        else:
            value = int(value) if header["schema"].get("type") == "integer" else value
            fits(value, header["schema"], f"{where}: {name}")
    surplus = {name for name in response.headers if name.startswith(PREFIXES)} - answer["headers"].keys()
    assert not surplus, f"{where}: {surplus} not documented"


def _path_item(path: str) -> dict[str, Any]:
    """Return the operations of a path; one that is written out comes before one with a parameter."""
    above, _, _ = path.rpartition("/")
    paths: dict[str, dict[str, Any]] = DOCUMENT["paths"]
    return paths.get(path) or paths.get(f"{above}/{{session_id}}", {})


def _check_headers_of_all(response: httpx.Response) -> None:
    """Fail unless it has the headers that docs/wire.md 2 promises for every answer, 404 and 405 included."""
    headers = response.headers
    assert headers["cache-control"] == "no-store, max-age=0"
    of_each = [
        {name: headers.get(prefix + name) for name in ("request-id", "actual-status", "known-error")}
        for prefix in PREFIXES
    ]
    assert of_each[0] == of_each[1], "the spellings differ"
    request_id, actual_status, known_error = of_each[0].values()
    assert request_id
    assert _REQUEST_ID.fullmatch(request_id)
    assert actual_status
    if int(actual_status) != response.status_code:
        assert response.status_code == httpx.codes.OK
        assert httpx.codes.is_client_error(int(actual_status))
    is_json = headers.get("content-type") == "application/json"
    body = response.json() if is_json else {}
    assert body.get("code") == known_error, "header and body disagree on the known error"


def fits(value: object, schema: dict[str, Any], where: str) -> None:
    """Fail unless a value fits a schema of the document."""
    validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]}, format_checker=FormatChecker())
    errors = [error.message for error in validator.iter_errors(value)]
    assert not errors, f"{where}: {errors}"
