"""What schemathesis may find, because it is meant so. Each is a rule that OpenAPI cannot say; everything else fails."""

import os
import zlib
from http import HTTPStatus
from typing import Any

import schemathesis
from schemathesis import Case, HookContext, Response
from schemathesis.core.failures import Failure
from schemathesis.core.parameters import ParameterLocation

from tests.support.oauth_wire import DEVICE_CODE_GRANT, INTROSPECT, REVOKE, TOKEN

ACCEPTED = (
    *("Invalid login code or the code has expired", "INVALID_POLLING_CODE", "No anonymous session"),
    *("characters that can be seen", "bytes in UTF-8", "came with another request before"),
    # What a token response may be beside, and who began the login: no schema of one body says it.
    *(
        "`refresh_token` in it",
        "`refresh_token` beside it",
        "at `$.token_response`",
        "An OAuth client began this login",
    ),
    # A header with a token that must be there, and be one; a client that must be there.
    *("CANNOT_GET_OWN_USER_WITHOUT_USER", "in header x-stack-refresh-token", "INVALID_OAUTH_CLIENT_ID_OR_SECRET"),
    "Invalid anon refresh token",
)


ABOUT_FORMS = {"RejectedPositiveData", "AcceptedNegativeData", "IgnoredAuth"}
"""In a form everything is a text: most texts are no code, token or scope, and the words for that are documented.
Parameters that nobody knows are ignored (RFC 6749 §3.2), and who has no secret is a public client."""
GIVEN = {
    name: os.environ.get(f"FUZZ_{variable}", "")
    for name, variable in {
        "client_id": "CLIENT_ID",
        "device_code": "DEVICE_CODE",
        "refresh_token": "REFRESH_TOKEN",
        "token": "REFRESH_TOKEN",
    }.items()
}
"""Right values of forms."""
STACK_TOKEN = "/api/v1/auth/oauth/token"
SECRETS = {INTROSPECT: os.environ.get("FUZZ_SERVER_KEY", ""), STACK_TOKEN: os.environ.get("FUZZ_CLIENT_KEY", "")}
"""Of clients that have one, by path."""
GRANTS = ("refresh_token", DEVICE_CODE_GRANT)


def _takes_a_form(case: Case[Any]) -> bool:
    path: str = case.operation.path
    return path.startswith("/oauth/") or path == STACK_TOKEN


def _form(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return a form of the same shape, in three of four with a client that there is and values that get further."""
    dice = zlib.crc32(repr(body).encode())
    if dice % 4 == 0:
        return body
    body = body | {"client_id": GIVEN["client_id"]}
    if path == REVOKE:
        return body  # what the others need is not to be revoked
    body |= {name: value for number, (name, value) in enumerate(GIVEN.items()) if name in body and dice >> number & 4}
    if "grant_type" in body and path == TOKEN:
        body["grant_type"] = GRANTS[dice % 2]
        if dice & 32:
            field = "refresh_token" if dice % 2 == 0 else "device_code"
            body[field] = GIVEN[field]
            body.pop("scope", None)
    body.pop("client_secret", None)
    if path in SECRETS:
        body["client_secret"] = SECRETS[path]
    return body


@schemathesis.hook
def before_call(_: HookContext, case: Case[Any], __: dict[str, Any]) -> None:
    """Put values that there are into what is sent, in three of four requests."""
    if _takes_a_form(case) and isinstance(case.body, dict):
        case.body = _form(case.operation.path, case.body)
    given = case.path_parameters
    if given and "project_id" in given and zlib.crc32(repr(given).encode()) % 4:
        given["project_id"] = GIVEN["client_id"]


@schemathesis.hook
def map_body(_: HookContext, body: Any) -> Any:  # noqa: ANN401 - any JSON
    """Write whole numbers as integers: in JSON Schema 999999.0 is one, and we refuse it."""
    match body:
        case dict():
            return {name: map_body(_, value) for name, value in body.items()}
        case float() if body.is_integer():
            return int(body)
    return body


@schemathesis.hook
def filter_failure(_: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
    """Return whether a finding is one."""
    headers = {name.lower(): value for name, value in (case.headers or {}).items()}
    if _takes_a_form(case) and type(failure).__name__ in ABOUT_FORMS:
        return False
    match type(failure).__name__:
        case "RejectedPositiveData":
            # A well-formed code of no session is a 400. So are characters that no regular expression can name as
            # invisible, and facts of too many bytes together. With enough characters escaped a body is too long. A key
            # that came with another request before is a 422.
            is_too_long = response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            return not (is_too_long or any(text in response.text for text in ACCEPTED))
        case "IgnoredAuth":
            # Without any key the answer is 400 ACCESS_TYPE_REQUIRED.
            return "got `400 Bad Request`" not in failure.message
        case "AcceptedNegativeData":
            # An empty header counts as absent, of two spellings one is read, and no request id is refused.
            # A 413 is a refusal too.
            if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                return False
            is_body = case.meta is not None and case.meta.is_negative_at(ParameterLocation.BODY)
            return is_body or not any(
                name.startswith("x-hexclave-") or name.endswith("request-id") or not value
                for name, value in headers.items()
            )
    return True
