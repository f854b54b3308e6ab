"""docs/wire.md 3, 4 and 5: the login itself, each row of its tables, and repetition with Idempotency-Key."""

import re
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest

from tests.support.wire import COMPLETE, INITIATE, POLL, Login, StartWire, Wire

INVALID_LOGIN_CODE = "Invalid login code or the code has expired"
NO_ANONYMOUS_SESSION = "No anonymous session associated with this code"
MINTED_TOKEN = re.compile(r"lrt_[0-9a-f]{32}[A-Za-z0-9_-]{54}")
WAITING, USED, EXPIRED = ({"status": status} for status in ("waiting", "used", "expired"))
SHORTEST = 1_000  # milliseconds


def new_key() -> str:
    """Return an Idempotency-Key that no other test sends."""
    return uuid.uuid4().hex


def milliseconds(timestamp: str) -> int:
    """Read `2026-01-01T00:15:00.000Z`."""
    return round(datetime.strptime(timestamp, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp() * 1000)


def is_refused(response: httpx.Response, text: str = INVALID_LOGIN_CODE) -> bool:
    """Return whether complete refused, in exactly these words."""
    return (response.status_code, response.headers["content-type"], response.text) == (
        400,
        "text/plain; charset=utf-8",
        text,
    )


def is_unknown(response: httpx.Response) -> bool:
    """Return whether poll answered that the project has no such code."""
    return (response.status_code, response.json()) == (
        400,
        {"code": "INVALID_POLLING_CODE", "error": "The polling code is invalid or does not exist."},
    )


def wait_for_the_end(wire: Wire, login: Login) -> None:
    """Poll until the session is expired."""
    until = time.monotonic() + 5
    while wire.poll(login).json() != EXPIRED:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_initiate_gives_both_codes_and_says_when_they_end(wire: Wire) -> None:
    """Clients read three keys; `interval` and `session_id` are ours (docs/wire.md 3)."""
    before = time.time() * 1000
    session = wire.post(INITIATE, json={"expires_in_millis": 90_000}, headers=wire.client_headers).json()
    assert session.keys() == {"polling_code", "login_code", "expires_at", "interval", "session_id"}
    assert re.fullmatch(r"lrp_[0-9a-f]{26}[A-Za-z0-9_-]{32}", session["polling_code"])
    assert re.fullmatch(r"[A-Z]{4}-[A-Z]{4}-[A-Z]{4}", session["login_code"])
    assert session["session_id"] in session["polling_code"]
    assert session["interval"] == wire.service.settings.poll_interval_s == 2
    assert before - 1_000 < milliseconds(session["expires_at"]) - 90_000 < time.time() * 1000 + 1_000


@pytest.mark.parametrize("request_", [{}, {"json": {}}, {"content": b""}])
def test_initiate_needs_no_body(wire: Wire, request_: dict[str, object]) -> None:
    """Absent or `{}`: fifteen minutes."""
    before = time.time() * 1000
    session = wire.client.post("/api/v1/auth/cli", headers=wire.client_headers, **request_).json()  # type: ignore[arg-type]  # of httpx
    assert before - 1_000 < milliseconds(session["expires_at"]) - 900_000 < time.time() * 1000 + 1_000


def test_the_documented_curl_completes_a_login_with_a_minted_token(wire: Wire) -> None:
    """No access type, one key, one field: `200 {}`; the next poll gets 201, later ones `used`."""
    login = wire.initiate()
    assert wire.poll(login).json() == WAITING
    response = wire.client.post(
        "/api/v1/auth/cli/complete",
        headers={
            "Content-Type": "application/json",
            "X-Stack-Project-Id": wire.project.project_id,
            "X-Stack-Secret-Server-Key": wire.project.secret_server_key,
        },
        content=f'{{"login_code": "{login.login_code}"}}'.encode(),
    )
    assert (response.status_code, response.content) == (200, b"{}")
    success = wire.poll(login)
    assert (success.status_code, success.json()["status"]) == (201, "success")
    assert MINTED_TOKEN.fullmatch(success.json()["refresh_token"])
    assert success.json().keys() == {"status", "refresh_token"}
    for _ in range(2):
        used = wire.poll(login)
        assert (used.status_code, used.json()) == (200, USED)


TOKENS = {
    "text": "rt",
    "all of visible ASCII": "".join(map(chr, range(0x21, 0x7F))),
    "JWT": "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln",
    "8192 characters": "x" * 8_192,
}


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
def test_the_clients_form_hands_over_its_own_token(wire: Wire, token: str) -> None:
    """Of 1 to 8192 characters, unchanged to the last."""
    login = wire.initiate()
    response = wire.complete(login, refresh_token=token)
    assert (response.status_code, response.json()) == (200, {"success": True})
    assert wire.poll(login).json() == {"status": "success", "refresh_token": token}


def test_check_only_looks(wire: Wire) -> None:
    """The session stays pending, and can be completed after (docs/wire.md 5)."""
    login = wire.initiate()
    for _ in range(2):
        response = wire.complete(login, mode="check")
        assert (response.status_code, response.json()) == (200, {"cli_session_state": "none"})
    assert wire.poll(login).json() == WAITING
    assert wire.complete(login, mode="complete").json() == {}
    assert is_refused(wire.complete(login, mode="check"))


def test_claim_finds_no_anonymous_session(wire: Wire) -> None:
    """There are none yet; a wrong code is reported first."""
    login = wire.initiate()
    assert is_refused(wire.complete(login, mode="claim-anon-session"), NO_ANONYMOUS_SESSION)
    assert wire.poll(login).json() == WAITING
    assert is_refused(wire.complete(Login("BBBB-BBBB-BBBB", ""), mode="claim-anon-session"))


@pytest.mark.parametrize("mode", ["complete", "check"])
def test_a_code_completes_once(wire: Wire, mode: str) -> None:
    """After completion or consumption: the same words (docs/wire.md 5)."""
    login = wire.completed()
    assert is_refused(wire.complete(login, mode=mode))
    assert is_refused(wire.complete(login, mode=mode, refresh_token="another"))
    token = wire.poll(login).json()["refresh_token"]
    assert MINTED_TOKEN.fullmatch(token)
    assert is_refused(wire.complete(login, mode=mode))


@pytest.mark.parametrize("mode", ["complete", "check"])
def test_a_code_is_of_its_project(wire: Wire, open_wire: Wire, mode: str) -> None:
    """Unknown in this project, pending in the other."""
    login = wire.initiate()
    assert is_refused(open_wire.complete(login, mode=mode))
    assert wire.poll(login).json() == WAITING
    assert wire.complete(login).json() == {}


SPELLINGS: dict[str, Callable[[str], str]] = {
    "small letters": str.lower,
    "no dashes": lambda code: code.replace("-", ""),
    "spaces": lambda code: code.replace("-", " "),
    "any way": lambda code: f"  {code[:3]}-{code[3:].lower()} -",
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_login_codes_are_compared_without_case_dashes_and_spaces(wire: Wire, spelling: Callable[[str], str]) -> None:
    """As people type and paste them (docs/wire.md 5)."""
    login = wire.initiate()
    assert wire.complete(Login(spelling(login.login_code), "")).json() == {}
    assert wire.poll(login).status_code == httpx.codes.CREATED


NO_CODES = {
    "empty": "",
    "nothing but dashes": "-- --",
    "of no session": "BBBB-BBBB-BBBB",
    "short": "BBBB-BBBB-BBB",
    "long": "BBBB-BBBB-BBBBB",
    "vowels": "AAAA-AAAA-AAAA",
    "NUL": "\0" * 12,
    "a letter that is S in capitals": "\u017f" * 12,
    "a letter that is FF in capitals": "\ufb00" * 6,
    "very long": "b" * 60_000,
}


@pytest.mark.parametrize("code", NO_CODES.values(), ids=NO_CODES)
@pytest.mark.parametrize("mode", ["complete", "check", "claim-anon-session"])
def test_an_unknown_code_is_refused(wire: Wire, mode: str, code: str) -> None:
    """A malformed code gets the same answer as an unknown one."""
    assert is_refused(wire.complete(Login(code, ""), mode=mode))


def test_letters_that_only_look_alike_in_capitals_are_no_letters_of_a_code(wire: Wire) -> None:
    """A long s is not an S."""
    while "S" not in (login := wire.initiate()).login_code:
        pass
    assert is_refused(wire.complete(Login(login.login_code.replace("S", "\u017f"), "")))
    assert wire.poll(login).json() == WAITING


def test_a_polling_code_is_known_as_a_whole_or_not_at_all(wire: Wire, open_wire: Wire) -> None:
    """Another project's, with another session's secret, malformed: the same known error (docs/wire.md 4)."""
    login, other = wire.initiate(), wire.initiate()
    code = login.polling_code
    assert is_unknown(open_wire.poll(login))
    last = "A" if code[-1] != "A" else "B"
    wrong = [
        *("", "x", "lrp_", code[:-1], code + "A", code[:-1] + last, code.upper(), " " + code, code + "\n"),
        code[:30] + other.polling_code[30:],  # the session of one, the secret of the other
        "lrp_ff" + code[6:],  # a partition that does not exist
        "lrp_+1" + code[6:],
        code[:-1] + "é",
        code[:-1] + "\0",
        code.replace("_", "-", 1),
        login.login_code,
        f"lrp_{uuid.uuid4().hex * 2}"[: len(code)],
        "l" * 60_000,
    ]
    for text in wrong:
        assert is_unknown(wire.poll(Login("", text))), text[:80]
    assert wire.poll(login).json() == WAITING


def test_an_expired_session_says_so(wire: Wire) -> None:
    """With a status at poll, with a refusal at complete."""
    login = wire.initiate(expires_in_millis=SHORTEST)
    assert wire.poll(login).json() == WAITING
    wait_for_the_end(wire, login)
    response = wire.poll(login)
    assert (response.status_code, response.json()) == (200, EXPIRED)
    assert is_refused(wire.complete(login))
    assert is_refused(wire.complete(login, mode="check"))


def test_a_token_can_be_picked_up_after_the_session_s_end(wire: Wire) -> None:
    """It was completed in time; used precedes completed, and completed precedes expired (docs/wire.md 4)."""
    login, witness = wire.completed(expires_in_millis=SHORTEST), wire.initiate(expires_in_millis=SHORTEST)
    wait_for_the_end(wire, witness)
    assert wire.poll(login).status_code == httpx.codes.CREATED
    assert wire.poll(login).json() == USED


def test_the_same_key_hears_the_same_token_again(wire: Wire) -> None:
    """A response lost on the network loses no login; another key, or no key, gets `used` (docs/wire.md 4)."""
    login = wire.completed()
    first = wire.poll(login, **{"Idempotency-Key": "mine"})
    again = [wire.poll(login, **{"Idempotency-Key": "mine"}) for _ in range(3)]
    assert first.status_code == httpx.codes.CREATED
    for response in again:
        assert (response.status_code, response.content) == (201, first.content)
    assert wire.poll(login).json() == USED
    assert wire.poll(login, **{"Idempotency-Key": "another"}).json() == USED
    assert wire.poll(login, **{"Idempotency-Key": "mine"}).content == first.content


def test_a_key_is_of_the_holder_of_the_polling_code(wire: Wire) -> None:
    """Two sessions with one key are independent; a key without the code is worth nothing."""
    key = {"Idempotency-Key": "shared"}
    one, other = wire.completed(), wire.completed()
    tokens = {wire.poll(login, **key).json()["refresh_token"] for login in (one, other)}
    assert len(tokens) == 2
    assert is_unknown(wire.poll(Login("", one.polling_code[:-1] + "!"), **key))


def test_a_key_used_too_early_or_by_who_came_late_gets_no_token(wire: Wire) -> None:
    """While pending it is answered afresh each time; after another poll's 201 it gets `used`."""
    key = {"Idempotency-Key": "early"}
    login = wire.initiate()
    assert wire.poll(login, **key).json() == WAITING
    wire.complete(login)
    assert wire.poll(login).status_code == httpx.codes.CREATED
    assert wire.poll(login, **key).json() == USED


def test_the_token_is_gone_when_the_replay_window_is_over(start_wire: StartWire) -> None:
    """The same key then gets `used`."""
    wire = start_wire(outcome_wait_ms=2_600, replay_window_ms=2_700)
    login, key = wire.completed(), {"Idempotency-Key": "mine"}
    assert wire.poll(login, **key).status_code == httpx.codes.CREATED
    assert wire.poll(login, **key).status_code == httpx.codes.CREATED
    until = time.monotonic() + 10
    while wire.poll(login, **key).json() != USED:
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("body", [{}, {"refresh_token": "rt"}])
def test_a_completion_may_be_sent_again_with_its_key(wire: Wire, body: dict[str, str]) -> None:
    """The same answer, before and after the pickup; another key, or no key, is refused (docs/wire.md 5)."""
    login, key = wire.initiate(), {"Idempotency-Key": new_key()}
    first = wire.complete(login, key, **body)
    assert first.status_code == httpx.codes.OK
    assert wire.complete(login, key, **body).content == first.content
    assert is_refused(wire.complete(login, {"Idempotency-Key": new_key()}, **body))
    assert is_refused(wire.complete(login, **body))
    token = wire.poll(login).json()["refresh_token"]
    assert token == body.get("refresh_token", token)
    assert wire.complete(login, key, **body).content == first.content
    assert wire.poll(login).json() == USED


def test_a_refusal_is_repeated_with_its_key(wire: Wire) -> None:
    """It stays a refusal, and completes nothing."""
    login, key = wire.completed(), {"Idempotency-Key": new_key()}
    assert is_refused(wire.complete(login, key))
    assert is_refused(wire.complete(login, key))
    unknown = Login("BBBB-BBBB-BBBB", "")
    assert is_refused(wire.complete(unknown, key))
    assert is_refused(wire.complete(unknown, key))


@pytest.mark.parametrize("path", [POLL, COMPLETE])
@pytest.mark.parametrize("key", [b"", b"x" * 256, b"a b", b"\xc3\xa9"])
def test_a_malformed_key_is_refused(wire: Wire, path: str, key: bytes) -> None:
    """1 to 255 visible ASCII characters; a malformed key is never ignored, and its request is not carried out."""
    login = wire.initiate()
    headers = {name.encode(): value.encode() for name, value in wire.server_headers.items()}
    body = {"polling_code": login.polling_code} if path == POLL else {"login_code": login.login_code}
    response = wire.post(path, json=body, headers={**headers, b"Idempotency-Key": key})
    assert (response.status_code, response.json()["code"]) == (400, "SCHEMA_ERROR")
    assert "Idempotency-Key" in response.json()["details"]["message"]
    assert wire.poll(login).json() == WAITING


def test_the_longest_key_is_a_key(wire: Wire) -> None:
    """255 characters, with every visible ASCII character among them."""
    key = {"Idempotency-Key": ("".join(map(chr, range(0x21, 0x7F))) * 3)[:255]}
    login = wire.initiate()
    assert wire.complete(login, key).json() == wire.complete(login, key).json() == {}
    assert wire.poll(login, **key).content == wire.poll(login, **key).content
