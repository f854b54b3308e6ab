"""Reading the headers that mean the same in every dialect."""

import re
from collections.abc import Iterable, Mapping

Headers = Mapping[bytes, bytes]

# RFC 7240 §2: preferences are separated by commas, their parameters by semicolons; the value may be quoted.
_WAIT = re.compile(rb'(?:^|,)\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:[,;]|$)', re.IGNORECASE)


def header(headers: Headers, names: tuple[bytes, ...]) -> str | None:
    """Return a header by its spellings, the first that is there and not empty."""
    for name in names:
        if value := headers.get(name, b"").strip():
            return value.decode("latin-1")
    return None


def wait_preference(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Return the seconds of `Prefer: wait=N` (RFC 7240 §4.3); None without one that makes sense (§2: ignore it)."""
    for name, value in headers:
        if name == b"prefer" and (found := _WAIT.search(value)):
            return int(found[1])
    return None
