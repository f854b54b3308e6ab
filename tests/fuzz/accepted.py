"""What schemathesis may find, because it is meant so. Each is a rule that OpenAPI cannot say; everything else fails."""

from http import HTTPStatus
from typing import Any

import schemathesis
from schemathesis import Case, HookContext, Response
from schemathesis.core.failures import Failure
from schemathesis.core.parameters import ParameterLocation

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
)


@schemathesis.hook
def map_body(_: HookContext, body: Any) -> Any:  # noqa: ANN401 - any JSON
    """Write whole numbers as integers: in JSON Schema 999999.0 is one, and we refuse it."""
    if isinstance(body, dict):
        return {
            name: int(value) if isinstance(value, float) and value.is_integer() else value
            for name, value in body.items()
        }
    return body


@schemathesis.hook
def filter_failure(_: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
    """Return whether a finding is one."""
    headers = {name.lower(): value for name, value in (case.headers or {}).items()}
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
