"""What the operations after a login have in common in the OpenAPI document; each one is beside its endpoint."""

from collections.abc import Sequence

from litestar.openapi.spec import OpenAPIType, Operation, Parameter, RequestBody, Schema

from api.stack.described import Bodies, answer, error_answers, header_parameter, operation, refusals
from api.stack.errors import STORE_AWAY, TOKENS_OFF, TOO_MUCH_AT_ONCE
from api.stack.headers import spellings

USER = "user:42"
SESSION = "0084b16ba1cbbb1e5a92d2ff3d"
_STRING = Schema(type=OpenAPIType.STRING)
ACCESS_TOKEN_HEADERS = tuple(
    header_parameter(name, "The user's access token.", _STRING) for name in spellings("access-token")
)
REFRESH_TOKEN_HEADERS = tuple(
    header_parameter(name, "The user's refresh token.", _STRING) for name in spellings("refresh-token")
)


def user_id(description: str) -> Parameter:
    """Return the description of the parameter that names a user."""
    return Parameter("user_id", "query", _STRING, description, required=True)


def after_login(  # noqa: PLR0913 - what an operation is
    operation_id: str,
    summary: str,
    description: str,
    success: Bodies,
    errors: Sequence[str],
    *parameters: Parameter,
    headers: Sequence[Parameter] = ACCESS_TOKEN_HEADERS,
    is_open: bool = False,
    body: RequestBody | None = None,
    forbidden: Sequence[str] = (),
    missing: Sequence[str] = (),
    too_many: Sequence[str] = (),
    unavailable: Sequence[str] = (),
) -> Operation:
    """Return the description of an operation; `success` are the bodies of its 200, `errors` its own known errors.

    One that `is_open` checks no key in a header.
    """
    refused = refusals(errors, forbidden=forbidden, missing=(TOKENS_OFF, *missing), too_many=too_many)
    described = operation(
        operation_id,
        summary,
        description,
        {
            "200": answer("Done.", success, overridden=refused),
            **error_answers(refused, [*unavailable, TOO_MUCH_AT_ONCE, STORE_AWAY]),
        },
        *headers,
        *parameters,
        body=body,
        tag="sessions",
    )
    if is_open:
        described.security = [{}]
    return described
