"""What a login is asked with, what it ends in, and what can become of it instead."""

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
    """Return `text` as one line of at most `limit` characters that cannot steer a terminal."""
    line = " ".join(text.split())
    return "".join(character for character in line if character.isprintable())[:limit]


def local_hostname() -> str | None:
    """Return this machine's name as the relay accepts it; None where there is none."""
    return printable(socket.gethostname()) or None


@dataclass(frozen=True, kw_only=True)
class LoginRequest:
    """Where to log in, and what the person who approves is told about the tool.

    Raises:
        ValueError: a field cannot be right; the text names it.

    """

    server: str
    """The relay's URL, and path where it is mounted below one: `https://`, or `http://` on this machine."""
    project_id: str
    publishable_client_key: str = field(repr=False)
    """`pck_…`. It names the project and may ship inside the tool."""
    confirm_url: str | None = None
    """The page where a login is approved, with `{login_code}` in it. It becomes `Prompt.link`."""
    expires_in: timedelta | None = None
    """How long the login can be approved, 1 s to 24 h. None: as the relay is set up."""
    client_name: str | None = None
    client_version: str | None = None
    hostname: str | None = field(default_factory=local_hostname)
    """Shown to the person who approves, who may know the machine by it. None: not told."""
    allow_insecure: bool = False
    """Take `http://` to another machine. Whoever is on the way can then read the token."""

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
        url.host.encode("idna")  # as a look-up of the name will do
    except (httpx.InvalidURL, UnicodeError):
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("server: expected a URL such as https://login.example.com")
    if url.userinfo or url.query or url.fragment:
        raise ValueError("server: a user name, a query or a fragment has no place in it")
    if url.scheme == "http" and not (allow_insecure or is_loopback(url.host)):
        raise ValueError("server: http:// to another machine shows the token to everyone on the way")


def is_loopback(host: str) -> bool:
    """Whether `host` can only be this machine (`localhost` by RFC 6761 §6.3)."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Prompt:
    """What the person needs in order to approve.

    Show the code even where there is a link: a page that shows the same code tells them that they approve
    this login and not a stranger's (RFC 8628 §3.3.1).
    """

    login_code: str = field(repr=False)
    link: str | None = field(repr=False)
    """`LoginRequest.confirm_url` with the code filled in."""
    expires_at: datetime
    """By the server's clock. `expires_in` holds on a machine whose clock is wrong, too."""
    expires_in: timedelta
    interval: float
    """Seconds between two polls."""
    session_id: str | None
    """Names this login in the relay's logs. Not secret; None from servers that do not tell."""


@dataclass(frozen=True)
class Login:
    """An approved login."""

    refresh_token: str = field(repr=False)
    session_id: str | None
    """As in `Prompt`."""
