"""The shapes of codes, ids and tokens: how each is drawn, recognised and digested.

The *login code* is shown to the person and typed or pasted by them; the *polling code* is the tool's secret.
"""

import hashlib
import secrets
from base64 import urlsafe_b64encode
from typing import NamedTuple

LOGIN_CODE_ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"  # RFC 8628 §6.1: no vowels, nothing that looks like a digit
LOGIN_CODE_LENGTH = 12  # 20^12 = 51.9 bits
POLLING_CODE_PREFIX = "lrp_"
POLLING_SECRET_BYTES = 24  # 192 bits, 32 characters
SESSION_ID_LENGTH = 26  # two hexadecimal digits of the partition, then 96 random bits
CODE_CHALLENGE = r"^[A-Za-z0-9_-]{43}$(?!\n)"  # RFC 7636 §4.2, S256: 256 bits; `$` alone would let a line feed pass
MINTED_TOKEN_PREFIX = "lrt_"  # noqa: S105 - the public prefix of tokens, not a token
MINTED_TOKEN_BYTES = 32
_POLLING_CODE_LENGTH = len(POLLING_CODE_PREFIX) + SESSION_ID_LENGTH + 32
_HEX_DIGITS = frozenset("0123456789abcdef")


class PollingCode(NamedTuple):
    """A well-formed polling code, taken apart."""

    text: str
    session_id: str
    digest: bytes
    """SHA-256 of the whole code: all that is stored of it."""


def new_login_code() -> str:
    """Return a fresh login code, normalised (no dashes)."""
    number = secrets.randbelow(len(LOGIN_CODE_ALPHABET) ** LOGIN_CODE_LENGTH)  # one draw, not one a symbol
    symbols = []
    for _ in range(LOGIN_CODE_LENGTH):
        number, position = divmod(number, len(LOGIN_CODE_ALPHABET))
        symbols.append(LOGIN_CODE_ALPHABET[position])
    return "".join(symbols)


def display_login_code(code: str) -> str:
    """Return a normalised login code as people read it: `WDJB-MJHT-XKQP`."""
    return "-".join(code[i : i + 4] for i in range(0, len(code), 4))


def normalise_login_code(text: str) -> str | None:
    """Return what `text` says as a login code, without case, dashes and spaces; None if it cannot be one."""
    if not text.isascii():
        return None  # in capitals, some other letters become two, or one of the alphabet
    code = text.upper().replace("-", "").replace(" ", "")
    if len(code) != LOGIN_CODE_LENGTH or not all(symbol in LOGIN_CODE_ALPHABET for symbol in code):
        return None
    return code


def login_code_digest(project_id: str, code: str) -> bytes:
    """Return the 32 bytes that stand for a normalised login code; it means nothing outside its project."""
    return hashlib.sha256(f"login-code:{project_id}:{code}".encode()).digest()


def new_session_id(partition: int) -> str:
    """Return a fresh session id that carries its partition."""
    return f"{partition:02x}{secrets.token_hex(12)}"


def partition_of(session_id: str) -> int:
    """Return the partition that a session id carries."""
    return int(session_id[:2], 16)


def new_polling_code(session_id: str) -> PollingCode:
    """Return a fresh polling code for a session."""
    code = POLLING_CODE_PREFIX + session_id + secrets.token_urlsafe(POLLING_SECRET_BYTES)
    return PollingCode(code, session_id, hashlib.sha256(code.encode()).digest())


def parse_polling_code(text: str, partitions: int) -> PollingCode | None:
    """Take a polling code apart; None if it is not one that `new_polling_code` makes for one of `partitions`."""
    if len(text) != _POLLING_CODE_LENGTH or not text.startswith(POLLING_CODE_PREFIX) or not text.isascii():
        return None
    session_id = text[len(POLLING_CODE_PREFIX) : len(POLLING_CODE_PREFIX) + SESSION_ID_LENGTH]
    if not _HEX_DIGITS.issuperset(session_id) or partition_of(session_id) >= partitions:
        return None
    return PollingCode(text, session_id, hashlib.sha256(text.encode()).digest())


def s256(code_verifier: str) -> bytes:
    """Return the code challenge of a verifier (RFC 7636 §4.2, S256)."""
    return urlsafe_b64encode(hashlib.sha256(code_verifier.encode()).digest()).rstrip(b"=")


def is_session_id(text: str, partitions: int) -> bool:
    """Whether `text` has the form of a session id of one of `partitions`."""
    return len(text) == SESSION_ID_LENGTH and _HEX_DIGITS.issuperset(text) and partition_of(text) < partitions


def mint_refresh_token() -> str:
    """Return a fresh refresh token, for a completion that brings none."""
    return MINTED_TOKEN_PREFIX + secrets.token_urlsafe(MINTED_TOKEN_BYTES)
