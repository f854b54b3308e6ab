"""Reads the bodies of this interface: `application/x-www-form-urlencoded` (RFC 6749 appendix B) into parameters."""

from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl

from api.oauth.errors import OAuthError
from api.request.headers import Headers

MAX_PARAMETERS = 100
MEDIA_TYPE = "application/x-www-form-urlencoded"

Form = Mapping[str, str]
"""The parameters of a request that are not empty. Unknown ones are among them and are ignored (RFC 6749 §3.2)."""


def parse_form(body: bytes, headers: Headers, query: bytes = b"") -> Form:
    """Return the parameters of a request. An empty one counts as absent (RFC 6749 §3.1).

    Raises:
        OAuthError: it is not a form in UTF-8, a parameter is repeated, or there are some in the query of the URI.

    """
    if query:
        raise OAuthError("invalid_request", "Send all parameters in the body: a URI may be logged.")
    _check_media_type(headers.get(b"content-type", b""))
    try:
        pairs = parse_qsl(
            body.decode(),
            keep_blank_values=True,
            strict_parsing=bool(body),
            encoding="utf-8",
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError:
        raise OAuthError("invalid_request", "The body is not a form in UTF-8.") from None
    _check_once(name for name, _ in pairs)
    return {name: value for name, value in pairs if value}


def _check_once(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise OAuthError("invalid_request", "A parameter is sent more than once.")
        seen.add(name)


def _check_media_type(content_type: bytes) -> None:
    media_type, *parameters = (part.strip().lower() for part in content_type.decode("latin-1").split(";"))
    if media_type != MEDIA_TYPE:
        raise OAuthError("invalid_request", f"Send the body as Content-Type: {MEDIA_TYPE}.")
    charsets = {parameter.partition("=")[2].strip('"') for parameter in parameters if parameter.startswith("charset=")}
    if not charsets <= {"utf-8", "utf8"}:
        raise OAuthError("invalid_request", "Send the body in UTF-8.")
