"""A project's rules for OAuth clients: whether they may log in, where the person goes, and the scopes of its tokens."""

import re
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import quote, urlsplit

MAX_URI_LENGTH = 2_048
MAX_SCOPES = 32
MAX_SCOPE_LENGTH = 256  # of all together; each session may hold them twice
MAX_AUDIENCE_LENGTH = 256
USER_CODE = "{user_code}"
"""Stands for the user code in a template of a URI."""

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 §3.3: a scope-token
_URI = re.compile(r"[\x21-\x7e]+")


class OAuth(NamedTuple):
    """The rules of a project for OAuth clients (RFC 8628)."""

    is_on: bool = False
    """Whether they may start logins. They need no publishable key."""
    verification_uri: str = ""
    """The page where the person enters the user code. Empty: there is none, and no OAuth client can log in."""
    verification_uri_complete: str = ""
    """A template of that page's URI with the code in it; empty: `verification_uri` with a parameter `user_code`."""
    scopes: tuple[str, ...] = ("cli",)
    """What a client may ask for, and what one gets that asks for nothing. Never empty."""
    audience: str = ""
    """Who the access tokens are for (`aud`); empty: the project's id."""

    @property
    def can_log_in(self) -> bool:
        """Whether an OAuth client can log in."""
        return self.is_on and bool(self.verification_uri)

    def complete_uri(self, user_code: str) -> str:
        """Return the URI of the page with a user code already in it (RFC 8628 §3.3.1)."""
        code = quote(user_code, safe="")
        if self.verification_uri_complete:
            return self.verification_uri_complete.replace(USER_CODE, code)
        separator = "&" if "?" in self.verification_uri else "?"
        return f"{self.verification_uri}{separator}user_code={code}"

    def granted(self, asked: str | None) -> str:
        """Return the scope for a request that asks for `asked`: what the project knows of it, else all it has.

        Clients add scopes of their own accord, so those that the project does not know are dropped and not refused.
        """
        known = [scope for scope in self.scopes if scope in (asked or "").split(" ")]
        return " ".join(known or self.scopes)


NO_OAUTH = OAuth()


def is_page_uri(text: str) -> bool:
    """Return whether `text` is the URI of a page that a person can be sent to: https, or http on this machine."""
    if len(text) > MAX_URI_LENGTH or not _URI.fullmatch(text):
        return False
    try:
        uri = urlsplit(text)
        host, _ = uri.hostname or "", uri.port  # raises for a port that is not a number
    except ValueError:
        return False
    if not host or uri.fragment or text.endswith("#") or uri.username is not None or set(text) & set('"<>\\^`{|}'):
        return False
    return uri.scheme == "https" or (uri.scheme == "http" and _is_loopback(host))


def is_page_template(text: str) -> bool:
    """Return whether `text` is the URI of a page with `{user_code}` in it, once, behind the host."""
    before, code, after = text.partition(USER_CODE)
    return bool(code) and is_page_uri(f"{before}CODE{after}") and before.count("/") > 2  # noqa: PLR2004 - https://host/


def parse_scopes(text: str) -> tuple[str, ...] | None:
    """Return the scopes that `text` lists, in its order and without repetition; None if it is not a list of scopes."""
    scopes = tuple(dict.fromkeys(text.split()))
    if not 1 <= len(scopes) <= MAX_SCOPES or len(" ".join(scopes)) > MAX_SCOPE_LENGTH:
        return None
    return scopes if all(map(_SCOPE.fullmatch, scopes)) else None


def is_audience(text: str) -> bool:
    """Return whether `text` can name the audience of tokens (RFC 7519 §4.1.3: a string or a URI)."""
    return len(text) <= MAX_AUDIENCE_LENGTH and _URI.fullmatch(text) is not None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
