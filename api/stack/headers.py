"""The names of this interface's headers: two spellings each, since the product that they come from was renamed.

Where a request has both, the first wins; an answer has both.
"""

from api.request.headers import Headers, header

PREFIXES = ("x-stack-", "x-hexclave-")


def spellings(name: str) -> tuple[str, ...]:
    """Return a header's name with each prefix."""
    return tuple(prefix + name for prefix in PREFIXES)


def _names(name: str) -> tuple[bytes, ...]:
    """Return the same as a request's scope has them."""
    return tuple(spelling.encode() for spelling in spellings(name))


PROJECT_ID = _names("project-id")
ACCESS_TYPE = _names("access-type")
PUBLISHABLE_CLIENT_KEY = _names("publishable-client-key")
SECRET_SERVER_KEY = _names("secret-server-key")
SUPER_SECRET_ADMIN_KEY = _names("super-secret-admin-key")
ADMIN_ACCESS_TOKEN = _names("admin-access-token")
ACCESS_TOKEN = _names("access-token")
REFRESH_TOKEN = _names("refresh-token")
OVERRIDE_ERROR_STATUS = _names("override-error-status")
ACTUAL_STATUS = _names("actual-status")
KNOWN_ERROR = _names("known-error")
REQUEST_ID = _names("request-id")


def shown_key(headers: Headers) -> tuple[str, str] | None:
    """Return the project's id and the key of a backend or administrator; None if there are none in these headers."""
    project_id = header(headers, PROJECT_ID)
    key = header(headers, SECRET_SERVER_KEY) or header(headers, SUPER_SECRET_ADMIN_KEY)
    return (project_id, key) if project_id is not None and key is not None else None
