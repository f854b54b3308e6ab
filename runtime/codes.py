"""The shapes of codes, ids, keys and tokens: how each is drawn, recognised and digested. No other module repeats them.

The *login code* is shown to the person, who types or pastes it. The *polling code* is the tool's secret.
"""

import hashlib
import re
import secrets
from base64 import urlsafe_b64encode
from typing import NamedTuple

LOGIN_CODE_ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"  # RFC 8628 §6.1: no vowels, nothing that looks like a digit
LOGIN_CODE_LENGTH = 12  # 20^12 = 51.9 bits
LOGIN_CODE_GROUP = 4  # letters between two dashes, as people read it
MAX_PARTITIONS = 64  # the number of evenly spread hash tags in `keys.TAGS`; the two digits of an id would allow 256
SESSION_ID_LENGTH = 26  # two hexadecimal digits of the partition, then 96 random bits
POLLING_CODE_PREFIX = "lrp_"
DEVICE_CODE_PREFIX = "lrd_"  # a polling code of an OAuth client; as long as the other
POLLING_SECRET_BYTES = 24  # 192 bits, 32 characters
MINTED_TOKEN_PREFIX = "lrt_"  # noqa: S105 - the public prefix of tokens, not a token
PUBLISHABLE_KEY_PREFIX = "pck_"
SERVER_KEY_PREFIX = "ssk_"
ADMIN_KEY_PREFIX = "sak_"
KEY_BYTES = 32  # of keys: 256 bits, 43 characters
GENERATION_DIGITS = 6  # hexadecimal; a tool that refreshes every 5 minutes needs them all after 159 years
FAMILY_SECRET_BYTES = 16  # 128 bits, 22 characters
TOKEN_SECRET_BYTES = 24  # 192 bits, 32 characters
SECRET_PREFIXES = (
    *(POLLING_CODE_PREFIX, DEVICE_CODE_PREFIX, MINTED_TOKEN_PREFIX),
    *(PUBLISHABLE_KEY_PREFIX, SERVER_KEY_PREFIX, ADMIN_KEY_PREFIX),
)

# Regular expressions for `fullmatch`. They have no `$`: it would also match before a last line feed.
_BASE64URL = "[A-Za-z0-9_-]"  # RFC 4648 §5
LOGIN_CODE_GROUP_SHAPE = f"[{LOGIN_CODE_ALPHABET}]{{{LOGIN_CODE_GROUP}}}"
LOGIN_CODE_SHAPE = f"({LOGIN_CODE_GROUP_SHAPE}-){{2}}{LOGIN_CODE_GROUP_SHAPE}"
"""A login code as it is displayed."""
TYPED_LOGIN_CODE_SHAPE = f"[ -]*([{LOGIN_CODE_ALPHABET}{LOGIN_CODE_ALPHABET.lower()}][ -]*){{{LOGIN_CODE_LENGTH}}}"
"""A login code as a person may type it."""
SESSION_ID_SHAPE = f"[0-9a-f]{{{SESSION_ID_LENGTH}}}"
POLLING_CODE_SHAPE = f"{POLLING_CODE_PREFIX}{SESSION_ID_SHAPE}{_BASE64URL}{{32}}"
DEVICE_CODE_SHAPE = f"{DEVICE_CODE_PREFIX}{SESSION_ID_SHAPE}{_BASE64URL}{{32}}"
REFRESH_TOKEN_SHAPE = f"{MINTED_TOKEN_PREFIX}{SESSION_ID_SHAPE}[0-9a-f]{{{GENERATION_DIGITS}}}{_BASE64URL}{{54}}"
"""A minted refresh token: its family's id, its generation, the family's secret, its own secret."""
KEY_SHAPE = f"({PUBLISHABLE_KEY_PREFIX}|{SERVER_KEY_PREFIX}|{ADMIN_KEY_PREFIX}){_BASE64URL}{{43}}"
"""A key of a project."""
CODE_CHALLENGE_SHAPE = f"{_BASE64URL}{{43}}"  # RFC 7636 §4.2, S256: 256 bits
CODE_VERIFIER_SHAPE = "[A-Za-z0-9._~-]{43,128}"  # RFC 7636 §4.1

_PAIRS = [first + second for first in LOGIN_CODE_ALPHABET for second in LOGIN_CODE_ALPHABET]
_POLLING_CODE = re.compile(f"{POLLING_CODE_SHAPE}|{DEVICE_CODE_SHAPE}")
_SESSION_ID = re.compile(SESSION_ID_SHAPE)
_SECRET_OF_POLLING_CODE = len(POLLING_CODE_PREFIX) + SESSION_ID_LENGTH  # index of its first character
_REFRESH_TOKEN = re.compile(REFRESH_TOKEN_SHAPE)
_GENERATION = len(MINTED_TOKEN_PREFIX) + SESSION_ID_LENGTH  # index of its first digit in a refresh token
_FAMILY_SECRET = _GENERATION + GENERATION_DIGITS
_TOKEN_SECRET = _FAMILY_SECRET + 22


class PollingCode(NamedTuple):
    """A well-formed polling code, taken apart."""

    text: str
    session_id: str
    digest: bytes
    """SHA-256 of the whole code. Only this is stored."""


class RefreshToken(NamedTuple):
    """A well-formed minted refresh token, taken apart."""

    text: str
    family_id: str
    """The id of its family, which is that of the session that it was handed over for. It leads to the partition."""
    generation: int
    """0 for the first token of its family, then one more with every rotation."""
    family_secret: str
    """The part that all tokens of the family share. It proves that an old token was once a real one."""

    @property
    def family_digest(self) -> bytes:
        """SHA-256 of what all tokens of its family share, 32 bytes. Only digests are stored."""
        return hashlib.sha256(f"{self.family_id}{self.family_secret}".encode()).digest()

    @property
    def digest(self) -> bytes:
        """SHA-256 of the whole token, 32 bytes."""
        return hashlib.sha256(self.text.encode()).digest()

    def successor(self) -> "RefreshToken":
        """Return a new token of the family, of the next generation."""
        return _refresh_token(self.family_id, self.generation + 1, self.family_secret)


def new_login_code() -> str:
    """Return a new random login code, normalised (no dashes)."""
    number = secrets.randbelow(len(_PAIRS) ** (LOGIN_CODE_LENGTH // 2))  # one draw instead of one per symbol
    pairs = []
    for _ in range(LOGIN_CODE_LENGTH // 2):
        number, position = divmod(number, len(_PAIRS))
        pairs.append(_PAIRS[position])
    return "".join(pairs)


def display_login_code(code: str) -> str:
    """Return a normalised login code as it is displayed: `WDJB-MJHT-XKQP`."""
    return "-".join(code[i : i + LOGIN_CODE_GROUP] for i in range(0, len(code), LOGIN_CODE_GROUP))


def normalise_login_code(text: str) -> str | None:
    """Return `text` as a login code in capitals, without dashes and spaces; None if it is not a valid login code."""
    if not text.isascii():
        return None  # `upper` turns some other letters into two, or into one of the alphabet
    code = text.upper().replace("-", "").replace(" ", "")
    if len(code) != LOGIN_CODE_LENGTH or not all(symbol in LOGIN_CODE_ALPHABET for symbol in code):
        return None
    return code


def login_code_digest(project_id: str, code: str) -> bytes:
    """Return the 32-byte digest of a normalised login code. It covers the project: a code is valid in that one only."""
    return hashlib.sha256(f"login-code:{project_id}:{code}".encode()).digest()


def new_session_id(partition: int) -> str:
    """Return a new random session id that carries its partition."""
    return f"{partition:02x}{secrets.token_hex(12)}"


def partition_of(session_id: str) -> int:
    """Return the partition that a session id carries."""
    return int(session_id[:2], 16)


def new_polling_code(session_id: str, prefix: str = POLLING_CODE_PREFIX) -> PollingCode:
    """Return a new random polling code for a session.

    The prefix is part of what is digested, so the code of an OAuth client is unknown with the other prefix.
    """
    code = prefix + session_id + secrets.token_urlsafe(POLLING_SECRET_BYTES)
    return PollingCode(code, session_id, hashlib.sha256(code.encode()).digest())


def parse_polling_code(text: str, partitions: int, prefix: str = POLLING_CODE_PREFIX) -> PollingCode | None:
    """Return the parts of a polling code with this prefix; None if `text` is not one, or names none of `partitions`."""
    if not text.startswith(prefix) or not _POLLING_CODE.fullmatch(text):
        return None
    session_id = text[len(POLLING_CODE_PREFIX) : _SECRET_OF_POLLING_CODE]
    if partition_of(session_id) >= partitions:
        return None
    return PollingCode(text, session_id, hashlib.sha256(text.encode()).digest())


def s256(code_verifier: str) -> bytes:
    """Return the code challenge of a verifier (RFC 7636 §4.2, S256)."""
    return urlsafe_b64encode(hashlib.sha256(code_verifier.encode()).digest()).rstrip(b"=")


def is_session_id(text: str, partitions: int) -> bool:
    """Return whether `text` has the form of a session id of one of `partitions`."""
    return _SESSION_ID.fullmatch(text) is not None and partition_of(text) < partitions


def mint_refresh_token(family_id: str) -> RefreshToken:
    """Return the first refresh token of a new family, for a completion that brings none."""
    return _refresh_token(family_id, 0, secrets.token_urlsafe(FAMILY_SECRET_BYTES))


def parse_refresh_token(text: str, partitions: int) -> RefreshToken | None:
    """Return the parts of a minted refresh token; None if `text` is not one, or names none of `partitions`."""
    if not _REFRESH_TOKEN.fullmatch(text):
        return None
    family_id = text[len(MINTED_TOKEN_PREFIX) : _GENERATION]
    if partition_of(family_id) >= partitions:
        return None
    return RefreshToken(text, family_id, int(text[_GENERATION:_FAMILY_SECRET], 16), text[_FAMILY_SECRET:_TOKEN_SECRET])


def _refresh_token(family_id: str, generation: int, family_secret: str) -> RefreshToken:
    text = (
        f"{MINTED_TOKEN_PREFIX}{family_id}{generation:0{GENERATION_DIGITS}x}{family_secret}"
        f"{secrets.token_urlsafe(TOKEN_SECRET_BYTES)}"
    )
    return RefreshToken(text, family_id, generation, family_secret)


def new_key(prefix: str) -> str:
    """Return a new random key that begins with `prefix`, one of the prefixes above."""
    return prefix + secrets.token_urlsafe(KEY_BYTES)
