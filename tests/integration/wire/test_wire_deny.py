"""Modes `inspect` and `deny` of complete (docs/wire.md 5): what a page shows, and the person's no."""

from datetime import datetime

import httpx
import pytest

from api.stack.errors import INVALID_LOGIN_CODE
from tests.support.wire import COMPLETE, Login, Wire

FACTS = {"client_name": "acme", "client_version": "1.2.3", "hostname": "laptop"}


def ask(wire: Wire, login: Login, mode: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """Send a request in a mode that completes nothing; as a backend, if it has no headers."""
    return wire.post(COMPLETE, json={"login_code": login.login_code, "mode": mode}, headers=headers)


def is_refused(response: httpx.Response) -> bool:
    """Whether it is answered like a code that names no session."""
    return (response.status_code, response.text) == (400, INVALID_LOGIN_CODE)


def test_inspect_tells_who_asks_and_from_where(wire: Wire) -> None:
    """Each fact that is known; the times are the session's; nothing is changed."""
    login = wire.initiate(**FACTS)
    response = ask(wire, login, "inspect")
    body = response.json()
    assert response.status_code == httpx.codes.OK
    times = [datetime.fromisoformat(body.pop(name)) for name in ("initiated_at", "expires_at")]
    assert (times[1] - times[0]).total_seconds() == 900
    assert len(body.pop("session_id")) == 26
    assert body == {**FACTS, "flow": "cli", "address": "127.0.0.1", "cli_session_state": "none"}
    assert wire.complete(login).json() == {}


def test_inspect_leaves_out_what_is_not_known(wire: Wire) -> None:
    """A tool need not say anything of itself."""
    assert not FACTS.keys() & ask(wire, wire.initiate(), "inspect").json().keys()


@pytest.mark.parametrize("mode", ["inspect", "deny"])
def test_client_access_neither_inspects_nor_denies(wire: Wire, open_wire: Wire, mode: str) -> None:
    """Nor where a project lets it complete: a stolen login code would tell who asks, or end the login."""
    for client in (wire, open_wire):
        login = client.initiate()
        response = ask(client, login, mode, client.client_headers)
        assert (response.status_code, response.json()["code"]) == (401, "INSUFFICIENT_ACCESS_TYPE")
        assert client.complete(login).json() == {}


def test_denied_login_is_over_for_everybody(wire: Wire) -> None:
    """Its tool is told, nobody completes it, and denying it again is the same answer."""
    login = wire.initiate()
    for _ in range(2):
        response = ask(wire, login, "deny")
        assert (response.status_code, response.json()) == (200, {"success": True})
        assert wire.poll(login).json() == {"status": "denied"}
    assert is_refused(wire.complete(login))
    assert is_refused(ask(wire, login, "check"))
    assert is_refused(ask(wire, login, "inspect"))


def test_completed_login_can_be_taken_back_until_it_is_picked_up(wire: Wire) -> None:
    """The token is handed to nobody; one that was handed over cannot be taken back."""
    login = wire.completed()
    assert ask(wire, login, "deny").json() == {"success": True}
    assert wire.poll(login).json() == {"status": "denied"}
    picked_up = wire.completed()
    assert wire.poll(picked_up).status_code == httpx.codes.CREATED
    assert is_refused(ask(wire, picked_up, "deny"))
    assert wire.poll(picked_up).json() == {"status": "used"}


def test_held_poll_hears_of_a_denial_at_once(wire: Wire) -> None:
    """It need not wait for its time to be over."""
    login = wire.initiate()
    with wire.later(lambda: ask(wire, login, "deny")):
        response = wire.poll(login, prefer="wait=20")
    assert response.json() == {"status": "denied"}
    assert response.elapsed.total_seconds() < 10


@pytest.mark.parametrize("mode", ["inspect", "deny"])
def test_code_is_of_its_project(wire: Wire, open_wire: Wire, mode: str) -> None:
    """Another project's backend learns nothing of it and ends nothing."""
    login = wire.initiate()
    assert is_refused(ask(open_wire, login, mode))
    assert wire.complete(login).json() == {}
