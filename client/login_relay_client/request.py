"""What a login is requested with, what it returns, and the ways in which it can fail."""

import ipaddress
import socket
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import httpx

MIN_LIFETIME: Final = timedelta(seconds=1)  # the wire's bounds for `expires_in_millis`
MAX_LIFETIME: Final = timedelta(days=1)
MAX_FACT: Final = 128  # characters of `hostname` and its like that the relay takes


def printable(text: str, limit: int = MAX_FACT) -> str:
    """Return `text` as one line of at most `limit` printable characters, which cannot control a terminal."""
    line = " ".join(text.split())
    return "".join(character for character in line if character.isprintable())[:limit]


def local_hostname() -> str | None:
    """Return this machine's name in a form that the relay accepts; None if it has no such name."""
    return printable(socket.gethostname()) or None


@dataclass(frozen=True, kw_only=True)
class LoginRequest:
    """Where to log in, and what the person who approves sees about the tool.

    Raises:
        ValueError: a field is not valid; the text names the field.

    """

    server: str
    """The relay's URL, with its path if it has one: `https://`, or `http://` for this machine."""
    project_id: str
    publishable_client_key: str = field(repr=False)
    """`pck_…`. It identifies the project, is not secret, and may ship inside the tool."""
    confirm_url: str | None = None
    """URL of the page where a login is approved; contains `{login_code}`. `Prompt.link` is made from it."""
    expires_in: timedelta | None = None
    """How long the login can be approved, 1 s to 24 h. None: the relay's default."""
    client_name: str | None = None
    client_version: str | None = None
    hostname: str | None = field(default_factory=local_hostname)
    """Shown to the person who approves, who may recognise the machine by it. None: not sent."""
    allow_insecure: bool = False
    """Accept `http://` to another machine. Anyone on the network between can then read the token."""
    allow_unbound: bool = False
    """Log in even if the server refuses `code_challenge`. Anyone with the polling code can then take the token."""

    def __post_init__(self) -> None:
        _check_server(self.server, allow_insecure=self.allow_insecure)
        for name in ("project_id", "publishable_client_key"):
            value: str = getattr(self, name)
            if not (value and value.isascii() and value.isprintable()) or " " in value:
                raise ValueError(f"{name}: expected visible ASCII characters")
        for name in ("client_name", "client_version", "hostname"):
            fact: str | None = getattr(self, name)
            if fact is not None and not (1 <= len(fact) <= MAX_FACT and fact.isprintable()):
                raise ValueError(f"{name}: expected 1 to {MAX_FACT} printable characters")
        if self.confirm_url is not None and "{login_code}" not in self.confirm_url:
            raise ValueError("confirm_url: expected {login_code} in it")
        if self.expires_in is not None and not MIN_LIFETIME <= self.expires_in <= MAX_LIFETIME:
            raise ValueError("expires_in: expected 1 second to 24 hours")


def _check_server(server: str, *, allow_insecure: bool) -> None:
    try:
        url = httpx.URL(server)
        url.host.encode("idna")  # the DNS look-up does the same later, and would fail
    except (httpx.InvalidURL, UnicodeError):
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("server: expected a URL such as https://login.example.com")
    if url.userinfo or url.query or url.fragment:
        raise ValueError("server: expected a URL without user name, query and fragment")
    if url.scheme == "http" and not (allow_insecure or is_loopback(url.host)):
        raise ValueError("server: expected https://, as http:// to another machine does not hide the token")


def is_loopback(host: str) -> bool:
    """Return whether `host` is certainly this machine (`localhost`: RFC 6761 §6.3)."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Prompt:
    """What the person needs in order to approve the login.

    Show the code even if you show the link. The person compares it with the code on the page, and so knows
    that they approve this login and not an attacker's (RFC 8628 §3.3.1).
    """

    login_code: str = field(repr=False)
    link: str | None = field(repr=False)
    """`LoginRequest.confirm_url` with the code filled in."""
    expires_at: datetime
    """By the server's clock. On a machine whose clock is wrong, use `expires_in`."""
    expires_in: timedelta
    interval: float
    """Seconds between two polls."""
    session_id: str | None
    """Identifies this login in the relay's logs. Not secret. None if the server does not send it."""


@dataclass(frozen=True)
class Login:
    """An approved login."""

    refresh_token: str = field(repr=False)
    session_id: str | None
    """As in `Prompt`."""
