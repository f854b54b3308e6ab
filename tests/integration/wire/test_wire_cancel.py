"""`POST /auth/cli/cancel` (docs/wire.md 8): a tool that waits no longer ends its session."""

from base64 import urlsafe_b64encode
from hashlib import sha256

import httpx
import pytest

from api.stack.errors import INVALID_LOGIN_CODE
from tests.support.wire import CANCEL, COMPLETE, Login, Wire

VERIFIER = "v" * 43
CHALLENGE = urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


def cancel(wire: Wire, login: Login, **body: str) -> httpx.Response:
    """Give a login up, as its tool."""
    given = {"polling_code": login.polling_code, **body}
    return wire.post(CANCEL, json=given, headers=wire.client_headers)


def is_unknown(response: httpx.Response) -> bool:
    """Whether a polling code is answered like one that names no session."""
    return (response.status_code, response.json()["code"]) == (400, "INVALID_POLLING_CODE")


def test_cancelled_login_is_over_for_everybody(wire: Wire) -> None:
    """Its login code completes nothing, its polls are told that it expired; and again."""
    login = wire.initiate()
    for _ in range(2):
        response = cancel(wire, login)
        assert (response.status_code, response.json()) == (200, {})
        assert wire.poll(login).json() == {"status": "expired"}
    refused = wire.complete(login)
    assert (refused.status_code, refused.text) == (400, INVALID_LOGIN_CODE)


def test_token_of_a_cancelled_login_is_handed_to_nobody(wire: Wire) -> None:
    """Completed and not picked up: cancelling takes the token away."""
    login = wire.completed()
    assert cancel(wire, login).json() == {}
    assert wire.poll(login).json() == {"status": "expired"}


def test_login_that_is_over_stays_as_it_is(wire: Wire) -> None:
    """A token that was handed over cannot be taken back by its tool; it is not told that anything failed."""
    login = wire.completed()
    assert wire.poll(login).status_code == 201
    assert cancel(wire, login).json() == {}
    assert wire.poll(login).json() == {"status": "used"}


@pytest.mark.parametrize("verifier", [{}, {"code_verifier": "w" * 43}])
def test_bound_login_is_cancelled_by_its_own_tool_alone(wire: Wire, verifier: dict[str, str]) -> None:
    """A stolen polling code ends nobody's login: without the right verifier it is unknown."""
    login = wire.initiate(code_challenge=CHALLENGE)
    assert is_unknown(cancel(wire, login, **verifier))
    assert wire.complete(login).json() == {}
    assert cancel(wire, login, code_verifier=VERIFIER).json() == {}


def test_polling_code_is_of_its_project(wire: Wire, open_wire: Wire) -> None:
    """Another project's tool cannot cancel it; nor can a code with another last letter."""
    login = wire.initiate()
    assert is_unknown(cancel(open_wire, login))
    last = "A" if login.polling_code[-1] != "A" else "B"
    assert is_unknown(cancel(wire, Login(login.login_code, login.polling_code[:-1] + last)))
    assert is_unknown(cancel(wire, Login(login.login_code, "lrp_")))
    assert wire.post(COMPLETE, json={"login_code": login.login_code}).json() == {}
