"""An Idempotency-Key that comes again with another request (docs/wire.md, sections 5, 6 and 8)."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.wire import CANCEL, COMPLETE, Login, Wire

KEY_REUSED = "This Idempotency-Key came with another request before. Nothing was done."
WAITING = {"status": "waiting"}
AT_ONCE = 15


@pytest.fixture
def key() -> dict[str, str]:
    """The header of a key that no other test sends."""
    return {"Idempotency-Key": uuid.uuid4().hex}


def is_reused(response: httpx.Response) -> bool:
    """Whether complete refused in plain text, as clients print it."""
    plain = response.headers["content-type"] == "text/plain; charset=utf-8"
    return plain and (response.status_code, response.text) == (422, KEY_REUSED)


def cancel(wire: Wire, login: Login, key: dict[str, str]) -> httpx.Response:
    """Cancel a login with a key."""
    return wire.post(CANCEL, json={"polling_code": login.polling_code}, headers=wire.client_headers | key)


OTHERS: dict[str, dict[str, str]] = {
    "another token": {"refresh_token": "another"},
    "a minted token": {},
    "a subject": {"refresh_token": "mine", "subject": "somebody"},
    "deny": {"mode": "deny"},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_key_with_another_request_for_the_same_code_is_refused(
    wire: Wire, key: dict[str, str], other: dict[str, str]
) -> None:
    """Nothing is done, and the first request still gets its answer."""
    login = wire.initiate()
    assert wire.complete(login, key, refresh_token="mine").json() == {"success": True}
    assert is_reused(wire.complete(login, key, **other))
    assert wire.complete(login, key, refresh_token="mine").json() == {"success": True}
    assert wire.poll(login).json() == {"status": "success", "refresh_token": "mine"}
    assert is_reused(wire.complete(login, key, **other))


def test_a_key_with_another_code_is_refused(wire: Wire, key: dict[str, str]) -> None:
    """Even one that is nobody's: the answer tells nothing of it."""
    login, other = wire.initiate(), wire.initiate()
    assert wire.complete(login, key).json() == {}
    assert is_reused(wire.complete(other, key))
    assert is_reused(wire.complete(Login("BBBB-BBBB-BBBB", ""), key))
    assert wire.poll(other).json() == WAITING
    spelt = Login(login.login_code.lower().replace("-", " "), "")
    assert wire.complete(spelt, key).json() == {}


def test_of_many_tokens_at_once_under_one_key_one_is_confirmed(wire: Wire, key: dict[str, str]) -> None:
    """The attack: 200 for a token that is not the one delivered would hide that an attacker's was put in its place."""
    login = wire.initiate()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        tokens = [f"token-{number}" for number in range(AT_ONCE)]
        answers = list(threads.map(lambda token: wire.complete(login, key, refresh_token=token), tokens))
    delivered = wire.poll(login).json()["refresh_token"]
    confirmed = [token for token, answer in zip(tokens, answers, strict=True) if answer.status_code == 200]
    assert confirmed == [delivered]
    assert [is_reused(answer) for answer in answers].count(True) == AT_ONCE - 1


def test_a_denial_is_repeated_with_its_key(wire: Wire, key: dict[str, str]) -> None:
    """And a completion with the same key is refused."""
    login = wire.initiate()
    for _ in range(2):
        assert wire.complete(login, key, mode="deny").json() == {"success": True}
    assert is_reused(wire.complete(login, key))
    assert wire.poll(login).json() == {"status": "denied"}


def test_a_key_belongs_to_who_sends_it(open_wire: Wire, key: dict[str, str]) -> None:
    """An attacker who guesses the backend's key, with the public one of the tools, takes it from nobody."""
    login, other = open_wire.initiate(), open_wire.initiate()
    as_tool = open_wire.client_headers | key
    assert open_wire.post(COMPLETE, json={"login_code": other.login_code}, headers=as_tool).json() == {}
    assert open_wire.complete(login, key, refresh_token="mine").json() == {"success": True}
    assert open_wire.poll(login).json() == {"status": "success", "refresh_token": "mine"}


def test_a_key_of_another_project_is_another_key(wire: Wire, open_wire: Wire, key: dict[str, str]) -> None:
    """Projects share a relay and no keys."""
    assert wire.complete(wire.initiate(), key, refresh_token="one").json() == {"success": True}
    assert open_wire.complete(open_wire.initiate(), key, refresh_token="two").json() == {"success": True}


def test_a_poll_s_key_cannot_cancel(wire: Wire, key: dict[str, str]) -> None:
    """A known error here; the poll with the key still gets its token."""
    login = wire.completed()
    first = wire.poll(login, **key)
    assert first.status_code == httpx.codes.CREATED
    refused = cancel(wire, login, key)
    assert (refused.status_code, refused.json()) == (422, {"code": "IDEMPOTENCY_KEY_REUSED", "error": KEY_REUSED})
    assert wire.poll(login, **key).content == first.content


def test_a_cancel_may_be_sent_again_with_its_key(wire: Wire, key: dict[str, str]) -> None:
    """The same request gets the same answer; a poll with the key is told how the login stands."""
    login = wire.initiate()
    for _ in range(2):
        assert cancel(wire, login, key).json() == {}
    assert wire.poll(login, **key).json() == {"status": "expired"}
