"""`POST /auth/cli/cancel` (docs/wire.md 8): a tool that no longer waits ends its session."""

from base64 import urlsafe_b64encode
from hashlib import sha256

import httpx
import pytest

from api.stack.errors import INVALID_LOGIN_CODE
from tests.support.wire import CANCEL, COMPLETE, Login, Wire

VERIFIER = "v" * 43
CHALLENGE = urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


def cancel(wire: Wire, login: Login, **body: str) -> httpx.Response:
    """Cancel a login, as its tool."""
    given = {"polling_code": login.polling_code, **body}
    return wire.post(CANCEL, json=given, headers=wire.client_headers)


def is_unknown(response: httpx.Response) -> bool:
    """Return whether the answer is that for a polling code of no session."""
    return (response.status_code, response.json()["code"]) == (400, "INVALID_POLLING_CODE")


def test_cancelled_login_is_over_for_everybody(wire: Wire) -> None:
    """Its login code completes nothing, its polls are answered `expired`; cancelling it again changes nothing."""
    login = wire.initiate()
    for _ in range(2):
        response = cancel(wire, login)
        assert (response.status_code, response.json()) == (200, {})
        assert wire.poll(login).json() == {"status": "expired"}
    refused = wire.complete(login)
    assert (refused.status_code, refused.text) == (400, INVALID_LOGIN_CODE)


def test_token_of_a_cancelled_login_is_handed_to_nobody(wire: Wire) -> None:
    """Completed but not picked up: cancelling deletes the token."""
    login = wire.completed()
    assert cancel(wire, login).json() == {}
    assert wire.poll(login).json() == {"status": "expired"}


def test_login_that_is_over_stays_as_it_is(wire: Wire) -> None:
    """Its tool cannot take back a token that was handed over; the answer reports no failure."""
    login = wire.completed()
    assert wire.poll(login).status_code == 201
    assert cancel(wire, login).json() == {}
    assert wire.poll(login).json() == {"status": "used"}


@pytest.mark.parametrize("verifier", [{}, {"code_verifier": "w" * 43}])
def test_bound_login_is_cancelled_by_its_own_tool_alone(wire: Wire, verifier: dict[str, str]) -> None:
    """A stolen polling code cannot cancel a login: without the right verifier it counts as unknown."""
    login = wire.initiate(code_challenge=CHALLENGE)
    assert is_unknown(cancel(wire, login, **verifier))
    assert wire.complete(login).json() == {}
    assert cancel(wire, login, code_verifier=VERIFIER).json() == {}


def test_polling_code_is_of_its_project(wire: Wire, open_wire: Wire) -> None:
    """Neither another project's tool nor a code with another last letter can cancel it."""
    login = wire.initiate()
    assert is_unknown(cancel(open_wire, login))
    last = "A" if login.polling_code[-1] != "A" else "B"
    assert is_unknown(cancel(wire, Login(login.login_code, login.polling_code[:-1] + last)))
    assert is_unknown(cancel(wire, Login(login.login_code, "lrp_")))
    assert wire.post(COMPLETE, json={"login_code": login.login_code}).json() == {}
