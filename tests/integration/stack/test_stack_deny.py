"""Modes `inspect` and `deny` of complete (docs/wire.md 5): what a page shows, and how a person refuses."""

from datetime import datetime

import httpx
import pytest

from api.stack.errors import INVALID_LOGIN_CODE
from tests.support.wire import COMPLETE, Login, Wire

FACTS = {"client_name": "acme", "client_version": "1.2.3", "hostname": "laptop"}


def ask(wire: Wire, login: Login, mode: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """Send a request in a mode that completes nothing, as a backend unless headers are given."""
    return wire.post(COMPLETE, json={"login_code": login.login_code, "mode": mode}, headers=headers)


def is_refused(response: httpx.Response) -> bool:
    """Return whether the answer is that for a code of no session."""
    return (response.status_code, response.text) == (400, INVALID_LOGIN_CODE)


def test_inspect_tells_who_asks_and_from_where(wire: Wire) -> None:
    """Each known fact; the times are those of the session; nothing is changed."""
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
    """A tool need not send facts about itself."""
    assert not FACTS.keys() & ask(wire, wire.initiate(), "inspect").json().keys()


@pytest.mark.parametrize("mode", ["inspect", "deny"])
def test_client_access_neither_inspects_nor_denies(wire: Wire, open_wire: Wire, mode: str) -> None:
    """Not even where a project lets it complete: with a stolen login code it could read the facts, or end the login."""
    for client in (wire, open_wire):
        login = client.initiate()
        response = ask(client, login, mode, client.client_headers)
        assert (response.status_code, response.json()["code"]) == (401, "INSUFFICIENT_ACCESS_TYPE")
        assert client.complete(login).json() == {}


def test_denied_login_is_over_for_everybody(wire: Wire) -> None:
    """Its tool gets `denied`, nobody can complete it, and denying it again gets the same answer."""
    login = wire.initiate()
    for _ in range(2):
        response = ask(wire, login, "deny")
        assert (response.status_code, response.json()) == (200, {"success": True})
        assert wire.poll(login).json() == {"status": "denied"}
    assert is_refused(wire.complete(login))
    assert is_refused(ask(wire, login, "check"))
    assert is_refused(ask(wire, login, "inspect"))


def test_completed_login_can_be_taken_back_until_it_is_picked_up(wire: Wire) -> None:
    """Nobody gets the token then; a token that was handed over cannot be taken back."""
    login = wire.completed()
    assert ask(wire, login, "deny").json() == {"success": True}
    assert wire.poll(login).json() == {"status": "denied"}
    picked_up = wire.completed()
    assert wire.poll(picked_up).status_code == httpx.codes.CREATED
    assert is_refused(ask(wire, picked_up, "deny"))
    assert wire.poll(picked_up).json() == {"status": "used"}


def test_held_poll_hears_of_a_denial_at_once(wire: Wire) -> None:
    """It does not wait for the end of its hold."""
    login = wire.initiate()
    with wire.later(lambda: ask(wire, login, "deny")):
        response = wire.poll(login, prefer="wait=20")
    assert response.json() == {"status": "denied"}
    assert response.elapsed.total_seconds() < 10


@pytest.mark.parametrize("mode", ["inspect", "deny"])
def test_code_is_of_its_project(wire: Wire, open_wire: Wire, mode: str) -> None:
    """Another project's backend can neither inspect nor deny it."""
    login = wire.initiate()
    assert is_refused(ask(open_wire, login, mode))
    assert wire.complete(login).json() == {}
