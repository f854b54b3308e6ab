"""Reading request bodies: JSON into frozen Structs, and an error that says which field is wrong and why."""

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from api.stack.errors import KnownError

T = TypeVar("T", bound=msgspec.Struct)

PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]*$(?!\n)"
"""Text that is shown to people: no control characters, nor what hides or reverses text (Unicode's bidirectional and
invisible formatting). `$` alone would let a final newline pass."""

_ENUM_VALUE = re.compile(r"^Invalid enum value .*(?= - at `)", re.DOTALL)  # msgspec repeats the value; we do not
_any_json = msgspec.json.Decoder(msgspec.Raw)
_IDEMPOTENCY_KEY = re.compile(rb"[\x21-\x7e]{1,255}")


def parse_body(body: bytes, headers: Mapping[bytes, bytes], decoder: msgspec.json.Decoder[T]) -> T:
    """Read a body; an absent one counts as `{}`.

    Raises:
        KnownError: `BODY_PARSING_ERROR` if it is not JSON in UTF-8, `SCHEMA_ERROR` if it is and does not fit.

    """
    if not body:
        body = b"{}"
    elif (problem := _media_type_problem(headers.get(b"content-type", b""))) is not None:
        raise KnownError("BODY_PARSING_ERROR", problem)
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            _any_json.decode(body.decode())  # it stopped at the first misfit; what follows may be no JSON
            raise schema_error(_ENUM_VALUE.sub("Invalid enum value", str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise KnownError("BODY_PARSING_ERROR", "The request body is not JSON in UTF-8, or nested too deeply.") from None


def schema_error(reason: str) -> KnownError:
    """Return the error for a request that does not fit; `reason` names the field and never repeats its value."""
    message = f"The request does not fit: {reason}"
    return KnownError("SCHEMA_ERROR", message, message=message)


def _media_type_problem(content_type: bytes) -> str | None:
    media_type, *parameters = (part.strip().lower() for part in content_type.decode("latin-1").split(";"))
    if media_type != "application/json":
        return "Send the request body as Content-Type: application/json."
    charsets = {parameter.partition("=")[2].strip('"') for parameter in parameters if parameter.startswith("charset=")}
    return None if charsets <= {"utf-8", "utf8"} else "Send the request body in UTF-8."


def idempotency_key(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the Idempotency-Key, None if there is none.

    Raises:
        KnownError: `SCHEMA_ERROR` unless it is 1 to 255 visible ASCII characters.

    """
    key = headers.get(b"idempotency-key")
    if key is None:
        return None
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        reason = "Expected 1 to 255 visible ASCII characters - in header Idempotency-Key"
        raise schema_error(reason)
    return key.decode()
