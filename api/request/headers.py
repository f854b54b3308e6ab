"""Reads the headers that mean the same in every dialect."""

import re
from collections.abc import Iterable, Mapping

from api.request.refusals import Misfit

Header = tuple[bytes, bytes]
Headers = Mapping[bytes, bytes]
"""The headers of a request; of several with one name the last."""

# RFC 7240 §2: preferences are separated by commas, their parameters by semicolons; the value may be quoted.
_WAIT = re.compile(rb'(?:^|,)\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:[,;]|$)', re.IGNORECASE)
_IDEMPOTENCY_KEY = re.compile(rb"[\x21-\x7e]{1,255}")


def header(headers: Headers, names: tuple[bytes, ...]) -> str | None:
    """Return the first header of these names that is present and not empty; None if there is none."""
    for name in names:
        value = headers.get(name)
        if value is not None and (value := value.strip()):
            return value.decode("latin-1")
    return None


def wait_preference(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Return the seconds of `Prefer: wait=N` (RFC 7240 §4.3); None if it is absent or malformed (§2: ignored)."""
    for name, value in headers:
        if name == b"prefer" and (found := _WAIT.search(value)):
            return int(found[1])
    return None


def idempotency_key(headers: Headers) -> str | None:
    """Return the Idempotency-Key; None if the request has none.

    Raises:
        Misfit: it is not 1 to 255 visible ASCII characters.

    """
    key = headers.get(b"idempotency-key")
    if key is None:
        return None
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise Misfit("Expected 1 to 255 visible ASCII characters", "in header Idempotency-Key")
    return key.decode()
