"""The last defence against secrets in logs: masks everything that looks like one of ours before a line is written.

Log calls pass no secrets (`logs.py`). This module catches those that get in by accident: in the text of an exception,
in a library's message, in the `repr` of an object.
"""

import logging
import re
from collections.abc import Mapping, MutableMapping
from typing import Any

from runtime.codes import LOGIN_CODE_ALPHABET, LOGIN_CODE_GROUP_SHAPE, LOGIN_CODE_LENGTH, SECRET_PREFIXES

MASK = "[redacted]"

# A client's text may be logged too, and may be long: every pattern takes time linear in the length of the text.
_CODE, _KEY = r"(?:polling|login|device|user)[_-]?code", r"(?:client|server|admin|api)[_-]key"
_TELLING = rf"(?:{_CODE}|token|secret|password|verifier|{_KEY})"
_NAME = re.compile(rf"{_TELLING}\Z", re.IGNORECASE)
_FOUR = LOGIN_CODE_GROUP_SHAPE
_SECRETS = (
    # WDJB MJHT XKQP. This and the next come first: a later pattern could match text before the secret together with the
    # secret's first characters, and leave the rest unmasked.
    (re.compile(rf"{_FOUR}(?: {_FOUR}){{2,}}", re.ASCII | re.IGNORECASE), MASK),
    # A JWT: base64url of `{"`, then parts after dots. Text that only begins like one is read once and kept as it is.
    (re.compile(r"eyJ[\w-]*+(\.[\w-]++(?:\.[\w-]*+)++)?", re.ASCII), lambda found: MASK if found[1] else found[0]),
    # Polling codes, minted tokens, the three keys of a project. The prefix stays readable.
    (re.compile(rf"({'|'.join(SECRET_PREFIXES)})[\w-]+", re.ASCII), rf"\1{MASK}"),
    # WDJBMJHTXKQP, WDJB-MJHT-XKQP, and further groups of letters after them
    (
        re.compile(
            rf"(?:[{LOGIN_CODE_ALPHABET}]{{{LOGIN_CODE_LENGTH},}}|{_FOUR}-{_FOUR}-{_FOUR})(?:-{_FOUR})*",
            re.ASCII | re.IGNORECASE,
        ),
        MASK,
    ),
    (re.compile(r"(://[^\s/:@]*:)[^\s/@]+@"), rf"\1{MASK}@"),  # the password of a URL
    # The secret part of a JSON Web Key (RFC 7518 §6.4.1, §6.2.2), of 256 bits or more.
    (re.compile(r"(\\?[\"'][kd]\\?[\"']\s*:\s*\\?[\"'])[\w-]{40,}", re.ASCII), rf"\1{MASK}"),
    # `refresh_token='…'` and `"refresh_token": "…"`, as in the `repr` of a Struct or a dict.
    (
        re.compile(rf"({_TELLING}\\?[\"']?\s*[=:]\s*b?)(?:(\\?[\"']).*?\2|[^\s\"',;&)}}\]]+)", re.IGNORECASE),
        rf"\1{MASK}",
    ),
)


def redact(text: str) -> str:
    """Return `text` with everything masked that looks like a secret of ours."""
    for pattern, mask in _SECRETS:
        text = pattern.sub(mask, text)
    return text


def redact_event(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return a log line with its secrets masked, and every text whose field name says that it is a secret.

    It is a structlog processor.
    """
    for name, value in event.items():
        event[name] = _masked(name, value)
    return event


def _masked(name: str, value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _masked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(name, inner) for inner in value]
    if _NAME.search(name):
        return MASK
    return redact(value if isinstance(value, str) else repr(value))  # renderers also call repr() on non-text


class RedactedRecord(logging.LogRecord):
    """A record of the standard library's logging, masked before a handler or formatter sees it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the arguments of LogRecord
        super().__init__(*args, **kwargs)
        self.msg, self.args = redact(self.getMessage()), ()
        if self.exc_info and self.exc_info[0] is not None:
            self.exc_text = redact(logging.Formatter().formatException(self.exc_info))
