import socket
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from login_relay_client.request import LoginRequest
from tests.support.scripted_login import KEY, REQUEST


@pytest.mark.parametrize(
    "server",
    [
        "https://relay.example",
        "https://relay.example:8443/below/",
        "http://127.0.0.1:8000",
        "http://127.9.9.9",
        "http://[::1]:8000",
        "http://localhost:8000",
        "HTTP://LOCALHOST",
        "http://relay.localhost",
    ],
)
def test_a_server_is_https_or_this_machine(server: str) -> None:
    """Over http:// the token travels in clear, which is fine where it does not leave the machine."""
    assert replace(REQUEST, server=server).server == server


@pytest.mark.parametrize(
    "server",
    [
        "http://relay.example",
        "http://10.0.0.1",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "http://127.0.0.1@relay.example",
        "http://relay.example#@127.0.0.1",
        "http://relay.example\\@127.0.0.1",
        "https://user:pass@relay.example",
        "https://relay.example?a=b",
        "https://relay.example#a",
        "https://",
        "https://relay.example:port",
        "https://xn--.example",
        "https://relay..example",
        "https://" + "x" * 64 + ".example",
        "http://[::1",
        "relay.example",
        "relay.example:443",
        "ftp://relay.example",
        "",
    ],
)
def test_any_other_server_is_refused(server: str) -> None:
    """Nothing is sent to a URL that is not understood, or in clear to another machine."""
    with pytest.raises(ValueError, match=r"^server: "):
        replace(REQUEST, server=server)


def test_http_to_another_machine_can_be_allowed() -> None:
    """A caller that trusts the network can allow it."""
    assert replace(REQUEST, server="http://relay.example", allow_insecure=True).allow_insecure


@pytest.mark.parametrize("value", ["", "a b", "pck_\r\nx-evil:1", "pck_ü"])
def test_what_cannot_be_a_header_is_refused(value: str) -> None:
    """The error names the field and does not repeat its value."""
    with pytest.raises(ValueError, match=r"^project_id: expected visible ASCII characters$"):
        replace(REQUEST, project_id=value)
    with pytest.raises(ValueError, match=r"^publishable_client_key: expected visible ASCII characters$"):
        replace(REQUEST, publishable_client_key=value)


def test_a_link_without_the_code_is_refused() -> None:
    """A template that forgot `{login_code}` would send everyone to a page that asks for it."""
    with pytest.raises(ValueError, match=r"^confirm_url: "):
        replace(REQUEST, confirm_url="https://app.example/approve")


@pytest.mark.parametrize("lifetime", [timedelta(milliseconds=999), timedelta(hours=24, milliseconds=1)])
def test_a_lifetime_outside_the_wires_bounds_is_refused(lifetime: timedelta) -> None:
    """One second to 24 hours (docs/wire.md 3)."""
    with pytest.raises(ValueError, match=r"^expires_in: "):
        replace(REQUEST, expires_in=lifetime)


@pytest.mark.parametrize("name", ["client_name", "client_version", "hostname"])
@pytest.mark.parametrize("fact", ["", "x" * 129, "a\nb", "a\x1b[31m", "a\u202eb", "a\ud800"])
def test_what_the_relay_would_not_show_is_refused(name: str, fact: str) -> None:
    """One to 128 printable characters (docs/wire.md 3): checked here, as a server rejects for other reasons too."""
    facts: dict[str, Any] = {name: fact}
    with pytest.raises(ValueError, match=rf"^{name}: expected 1 to 128 printable characters$"):
        replace(REQUEST, **facts)


def test_the_hostname_is_this_machines_unless_one_opts_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cut to what the relay takes: 128 printable characters."""
    monkeypatch.setattr(socket, "gethostname", lambda: "\x1blap\x00top" + "x" * 200)
    request = LoginRequest(server="https://relay.example", project_id="p", publishable_client_key=KEY)

    assert request.hostname == "laptop" + "x" * 122
    assert replace(request, hostname=None).hostname is None
