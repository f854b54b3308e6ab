"""Reads request bodies: JSON into frozen Structs, or an error that says which field is wrong and why."""

import re
from typing import TypeVar

import msgspec

from api.request.headers import Headers
from api.request.refusals import Misfit, Unreadable

T = TypeVar("T", bound=msgspec.Struct)
V = TypeVar("V")

_ENUM_VALUE = re.compile(r"^Invalid enum value .*(?= - at `)", re.DOTALL)  # msgspec quotes the value; we do not
_any_json = msgspec.json.Decoder(msgspec.Raw)


def parse_body(body: bytes, headers: Headers, decoder: msgspec.json.Decoder[T]) -> T:
    """Return a decoded body. An absent body counts as `{}`.

    Raises:
        Unreadable: it is not JSON in UTF-8.
        Misfit: it is JSON, but does not fit the type of `decoder`.

    """
    if not body:
        body = b"{}"
    elif (problem := _media_type_problem(headers.get(b"content-type", b""))) is not None:
        raise Unreadable(problem)
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            _any_json.decode(body.decode())  # the decoder stopped at the first misfit; the rest may not be JSON
            raise _misfit(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreadable("The request body is not JSON in UTF-8, or nested too deeply.") from None


def _misfit(error: msgspec.ValidationError) -> Misfit:
    text = _ENUM_VALUE.sub("Invalid enum value", str(error))
    reason, at, path = text.rpartition(" - at ")
    return Misfit(reason, f"at {path}") if at else Misfit(text)


def _media_type_problem(content_type: bytes) -> str | None:
    if content_type == b"application/json":  # as nearly everybody writes it
        return None
    media_type, *parameters = (part.strip().lower() for part in content_type.decode("latin-1").split(";"))
    if media_type != "application/json":
        return "Send the request body as Content-Type: application/json."
    charsets = {parameter.partition("=")[2].strip('"') for parameter in parameters if parameter.startswith("charset=")}
    return None if charsets <= {"utf-8", "utf8"} else "Send the request body in UTF-8."


def given(value: V | msgspec.UnsetType) -> V | None:
    """Return the value of a field that may be absent, or None (`null` itself does not fit)."""
    return None if value is msgspec.UNSET else value
