"""A project: a tenant with three keys, and the rules for its name and origins. Keys are stored only as SHA-256.

A key is 256 random bits, which cannot be guessed. So a plain hash is enough: attackers need not be slowed down.
"""

import hashlib
import hmac
import re
import uuid
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from projects.oauth import NO_OAUTH, OAuth
from runtime.codes import ADMIN_KEY_PREFIX, PUBLISHABLE_KEY_PREFIX, SERVER_KEY_PREFIX

NO_DIGEST = bytes(32)  # no text is known whose SHA-256 this is
MAX_NAME_LENGTH = 64
# RFC 6454 §6.2, as browsers write it: lower case, no path, and the port only if it is not the scheme's default.
_ORIGIN = re.compile(r"(https?)://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")
_OWN_PORTS = {"http": "80", "https": "443"}


def normalise_origin(text: str) -> str | None:
    """Return a web origin as browsers send it; None if `text` is not a valid origin."""
    if not (found := _ORIGIN.fullmatch(text.lower().removesuffix("/"))):
        return None
    scheme, host, port = found.groups()
    return f"{scheme}://{host}" if port in (None, _OWN_PORTS[scheme]) else f"{scheme}://{host}:{port}"


def is_project_name(text: str) -> bool:
    """Return whether `text` can name a project: 1 to 64 printable characters, no space at its ends, and not a UUID.

    `Projects.find` takes a UUID for an id, in any notation.
    """
    if not 1 <= len(text) <= MAX_NAME_LENGTH or not text.isprintable() or text != text.strip():
        return False
    try:
        uuid.UUID(text)
    except ValueError:
        return True
    return False


class KeyKind(StrEnum):
    """The three keys of a project."""

    PUBLISHABLE_CLIENT = "publishable_client_key"
    """For tools: it ships inside them and is not a secret."""
    SECRET_SERVER = "secret_server_key"  # noqa: S105 - the name of a key, not a key
    """For backends: it completes logins."""
    SUPER_SECRET_ADMIN = "super_secret_admin_key"  # noqa: S105 - the name of a key, not a key
    """For administrators."""


KEY_PREFIXES = {
    KeyKind.PUBLISHABLE_CLIENT: PUBLISHABLE_KEY_PREFIX,
    KeyKind.SECRET_SERVER: SERVER_KEY_PREFIX,
    KeyKind.SUPER_SECRET_ADMIN: ADMIN_KEY_PREFIX,
}


class KeyDigest(NamedTuple):
    """The stored digests of a key and of the key that it replaced."""

    current: bytes
    previous: bytes
    """32 zero bytes if there is none: as long as a digest, so that comparing takes as long."""
    previous_until: int
    """The Redis time in milliseconds until which the previous key is valid."""

    def matches(self, key: str, now: int) -> bool:
        """Return whether a key is valid. Compares both digests, in constant time: timing reveals nothing."""
        digest = hashlib.sha256(key.encode()).digest()
        is_current = hmac.compare_digest(digest, self.current)
        is_previous = hmac.compare_digest(digest, self.previous)
        return is_current | (is_previous & (now <= self.previous_until))


class Policy(NamedTuple):
    """The rules of a project for its sessions. None: the relay's setting applies."""

    longest_lifetime_ms: int | None = None
    """Longer lifetimes that tools ask for are cut to this."""
    require_binding: bool = False
    """Whether a session must have a `code_challenge`."""
    live_sessions_per_address: int | None = None
    refresh_token_idle_ms: int | None = None
    """Minted refresh tokens end when they are not used for so long; never longer than the setting says."""
    refresh_token_life_ms: int | None = None
    """The same, however often they are used."""
    claim_anonymous: bool = False
    """Whether a backend may take over the anonymous session of a tool by the login code."""


DEFAULT_POLICY = Policy()


class Project(NamedTuple):
    """A project as it is stored."""

    id: str
    name: str
    allow_client_complete: bool
    """Whether the publishable key may complete logins, as the browser side of some clients does."""
    created_at: int
    keys: Mapping[KeyKind, KeyDigest]
    allowed_origins: tuple[str, ...] = ()
    """The web origins (RFC 6454) whose pages may call the API for the project; sorted."""
    policy: Policy = DEFAULT_POLICY
    oauth: OAuth = NO_OAUTH


_NO_KEY = KeyDigest(NO_DIGEST, NO_DIGEST, 0)
NO_PROJECT = Project("", "", allow_client_complete=False, created_at=0, keys=dict.fromkeys(KeyKind, _NO_KEY))
"""Stands for a project that there is not, so that checking its keys takes as long."""
