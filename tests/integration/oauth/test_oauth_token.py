"""`POST /oauth/token`, row by row (docs/wire.md, section 9)."""

import base64
import hashlib
import threading
import time

import httpx
import pytest

from projects.project import Policy
from tests.support.oauth_services import ORIGIN, StartOAuth
from tests.support.oauth_wire import DEVICE_AUTHORIZATION, DEVICE_CODE_GRANT, REVOKE, TOKEN, OAuthWire, error

VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
BOUND = {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}


def test_grant_type_comes_before_everything_else(oauth: OAuthWire) -> None:
    """An unknown one is refused with nothing read, even of nobody's."""
    assert error(oauth.client.post(TOKEN, data={"grant_type": "password"})) == (400, "unsupported_grant_type")
    assert error(oauth.client.post(TOKEN, data={"client_id": "x"})) == (400, "invalid_request")
    assert error(oauth.post(TOKEN, None, grant_type=DEVICE_CODE_GRANT)) == (400, "invalid_request")
    assert error(oauth.post(TOKEN, None, grant_type="refresh_token")) == (400, "invalid_request")


@pytest.mark.parametrize("code", ["", "x", "lrp_" + "0" * 58, "lrd_" + "0" * 58])
def test_code_that_is_none_is_an_invalid_grant(oauth: OAuthWire, code: str) -> None:
    """Unknown and malformed are the same; an absent one is a request that lacks it."""
    word = "invalid_grant" if code else "invalid_request"
    assert error(oauth.ask({"device_code": code})) == (400, word)


def test_each_interface_knows_only_its_own_logins(oauth: OAuthWire) -> None:
    """Who began decides whether tokens rotate, so a code of one is unknown to the other, whatever its prefix."""
    started, other = oauth.start(), oauth.backend.initiate()
    for code in (started["device_code"], "lrp_" + started["device_code"][4:]):
        polled = oauth.backend.post("/auth/cli/poll", headers=oauth.backend.client_headers, json={"polling_code": code})
        assert polled.json()["code"] == "INVALID_POLLING_CODE"
    for code in (other.polling_code, "lrd_" + other.polling_code[4:]):
        assert error(oauth.ask({"device_code": code})) == (400, "invalid_grant")


def test_denied_and_cancelled_logins_end(oauth: OAuthWire) -> None:
    """In the words of RFC 8628 §3.5; a tool cancels by revoking its device code."""
    denied, cancelled = oauth.start(), oauth.start()
    assert oauth.approve(denied, mode="deny", subject=None).json() == {"success": True}
    assert error(oauth.ask(denied)) == (400, "access_denied")
    for _ in range(2):
        assert oauth.post(REVOKE, None, token=cancelled["device_code"]).status_code == httpx.codes.OK
    assert error(oauth.ask(cancelled)) == (400, "expired_token")


def test_login_expires(start_oauth: StartOAuth) -> None:
    """`expires_in` is rounded down, and then it is over."""
    wire = start_oauth(policy=Policy(longest_lifetime_ms=1_500))
    started = wire.start()
    assert started | {"expires_in": 1} == started
    held = wire.ask(started, {"prefer": "wait=5"})
    assert error(held) == (400, "expired_token")
    assert held.headers["preference-applied"] == "wait=5"


def test_request_is_held_by_default(oauth: OAuthWire) -> None:
    """Until the login is approved; no client asks for it."""
    started = oauth.start()
    timer = threading.Timer(0.5, oauth.approve, [started])
    timer.start()
    asked_at = time.monotonic()
    response = oauth.post(TOKEN, None, grant_type=DEVICE_CODE_GRANT, device_code=started["device_code"])
    timer.join()
    assert response.status_code == httpx.codes.OK
    assert 0.4 < time.monotonic() - asked_at < 10
    assert "preference-applied" not in response.headers


def test_tokens_that_were_revoked_are_not_handed_over_again(oauth: OAuthWire) -> None:
    """The verifier repeats a lost answer, with a fresh access token; not after the login was revoked."""
    started = oauth.start(**BOUND)
    oauth.approve(started)
    tokens = oauth.ask(started, code_verifier=VERIFIER).json()
    assert oauth.ask(started, code_verifier=VERIFIER).is_success
    assert oauth.post(REVOKE, None, token=tokens["refresh_token"]).is_success
    assert error(oauth.ask(started, code_verifier=VERIFIER)) == (400, "invalid_grant")


def test_bound_login_needs_its_verifier_and_may_be_asked_for_again(oauth: OAuthWire) -> None:
    """The verifier is the implicit key: a lost answer is repeated, with the same refresh token."""
    started = oauth.start(**BOUND)
    assert oauth.approve(started).is_success
    assert error(oauth.ask(started)) == (400, "invalid_grant")
    assert error(oauth.ask(started, code_verifier="a" * 43)) == (400, "invalid_grant")
    first, again = [oauth.ask(started, code_verifier=VERIFIER).json() for _ in range(2)]
    assert first["refresh_token"] == again["refresh_token"]
    assert first["access_token"] != again["access_token"]
    unbound = oauth.start()
    assert oauth.approve(unbound).is_success
    assert error(oauth.ask(unbound, code_verifier=VERIFIER)) == (400, "invalid_grant")


@pytest.mark.parametrize(
    "form",
    [
        {"code_challenge": CHALLENGE},
        {"code_challenge": CHALLENGE, "code_challenge_method": "plain"},
        {"code_challenge": "short", "code_challenge_method": "S256"},
        {"code_challenge_method": "S256"},
        {"client_name": "a" * 129},
        {"hostname": "a\u202eb"},
        {"client_name": "a" * 128, "client_version": "b" * 128, "hostname": "c"},
    ],
)
def test_device_authorization_is_strict_where_it_matters(oauth: OAuthWire, form: dict[str, str]) -> None:
    """RFC 7636's default is `plain`, which is not accepted; what people are shown can be seen."""
    assert error(oauth.post(DEVICE_AUTHORIZATION, None, **form)) == (400, "invalid_request")


def test_project_may_require_binding(start_oauth: StartOAuth) -> None:
    """As at the other interface."""
    wire = start_oauth(policy=Policy(require_binding=True))
    assert error(wire.post(DEVICE_AUTHORIZATION)) == (400, "invalid_request")
    wire.start(**BOUND)


def test_lost_answer_is_repeated_for_the_same_key(oauth: OAuthWire) -> None:
    """Idempotency-Key, as at the other interface; without one the code is used."""
    started = oauth.start()
    assert oauth.approve(started).is_success
    first, again = [oauth.ask(started, {"idempotency-key": "k"}).json() for _ in range(2)]
    assert first["refresh_token"] == again["refresh_token"]
    assert error(oauth.ask(started, {"idempotency-key": "other"})) == (400, "invalid_grant")
    assert error(oauth.ask(started)) == (400, "invalid_grant")


def test_slow_down_is_said_only_if_polls_are_throttled(oauth: OAuthWire, start_oauth: StartOAuth) -> None:
    """It ends real clients."""
    started = oauth.start()
    for _ in range(3):
        assert error(oauth.ask(started)) == (400, "authorization_pending")
    throttled = start_oauth(throttle_polls=True)
    started = throttled.start()
    assert error(throttled.ask(started)) == (400, "authorization_pending")
    response = throttled.ask(started)
    assert error(response) == (400, "slow_down")
    assert int(response.headers["retry-after"]) >= 1


def test_too_many_wrong_codes_are_an_invalid_grant(start_oauth: StartOAuth) -> None:
    """429, and not `slow_down`: a client would go on."""
    wire = start_oauth(wrong_codes_per_address=2)
    for _ in range(2):
        assert error(wire.ask({"device_code": "x"})) == (400, "invalid_grant")
    assert error(wire.ask({"device_code": "x"})) == (429, "invalid_grant")
    started = wire.start()
    assert error(wire.ask(started)) == (400, "authorization_pending")


def test_too_many_logins_are_refused(start_oauth: StartOAuth) -> None:
    """429, with the time to wait."""
    wire = start_oauth(initiations_per_address=1)
    wire.start()
    assert error(wire.post(DEVICE_AUTHORIZATION)) == (429, "temporarily_unavailable")


def test_login_is_pending_while_no_worker_runs(start_oauth: StartOAuth) -> None:
    """Completion is refused with 503, and a refresh too; a device code is pending, never 503."""
    wire = start_oauth(workers=1, outcome_wait_ms=2_600)
    tokens, started = wire.logged_in(), wire.start()
    assert wire.approve(started).is_success
    for worker in wire.service.workers:
        worker.end()
    assert error(wire.ask(started)) == (400, "authorization_pending")
    assert error(wire.refresh(tokens["refresh_token"])) == (503, "temporarily_unavailable")


def test_scope_is_what_was_granted(oauth: OAuthWire) -> None:
    """Asked for, dropped if unknown, or said by the backend; a refresh may narrow it and not widen it."""
    assert oauth.logged_in()["scope"] == "cli repo"
    assert oauth.logged_in(scope="openid repo")["scope"] == "repo"
    started = oauth.start(scope="cli repo")
    assert oauth.approve(started, scope="cli").is_success
    tokens = oauth.ask(started).json()
    assert tokens["scope"] == "cli"
    assert error(oauth.refresh(tokens["refresh_token"], scope="repo")) == (400, "invalid_scope")
    narrowed = oauth.refresh(oauth.logged_in()["refresh_token"], scope="repo")
    assert narrowed.json()["scope"] == "repo"


@pytest.mark.parametrize(
    ("body", "status"),
    [({"subject": None}, 400), ({"refresh_token": "own"}, 400), ({"token_response": {"access_token": "a"}}, 400)],
)
def test_oauth_login_is_not_completed_without_what_it_needs(
    oauth: OAuthWire, body: dict[str, object], status: int
) -> None:
    """Said at complete, not at the tool: an access token says who logged in."""
    started = oauth.start()
    response = oauth.approve(started, **body)
    assert response.status_code == status
    assert response.json()["code"] == "SCHEMA_ERROR"
    assert error(oauth.ask(started)) == (400, "authorization_pending")
    assert oauth.approve(started).is_success


def test_backend_may_bring_its_own_tokens(oauth: OAuthWire) -> None:
    """Handed over whole, with what is left of `expires_in`; without an ID token; the relay knows nothing of them."""
    brought = {
        "access_token": "own-access-token",
        "token_type": "N_A",
        "expires_in": 3_600,
        "refresh_token": "own-refresh-token",
        "id_token": "e30.e30.",
        "more": {"a": [1]},
    }
    started = oauth.start()
    assert oauth.approve(started, subject=None, token_response=brought).json() == {"success": True}
    tokens = oauth.ask(started).json()
    assert 3_590 <= tokens.pop("expires_in") <= 3_600
    assert tokens == {name: value for name, value in brought.items() if name not in {"expires_in", "id_token"}}
    assert oauth.introspect("own-access-token") == {"active": False}
    assert error(oauth.refresh("own-refresh-token")) == (400, "invalid_grant")


def test_tool_of_the_other_interface_gets_the_refresh_token_of_a_token_response(oauth: OAuthWire) -> None:
    """It needs one, which is said at complete."""
    login = oauth.backend.initiate()
    brought = {"access_token": "a", "token_type": "Bearer"}
    assert oauth.backend.complete(login, token_response=brought).status_code == 400
    with_token = brought | {"refresh_token": "own"}
    assert oauth.backend.complete(login, token_response=with_token).json() == {"success": True}
    assert oauth.backend.poll(login).json() == {"status": "success", "refresh_token": "own"}


def test_page_sees_what_an_oauth_client_asks_for(oauth: OAuthWire) -> None:
    """`mode: inspect` names the interface and the scope."""
    started = oauth.start(scope="repo", client_name="acme", hostname="laptop")
    shown = oauth.approve(started, mode="inspect", subject=None).json()
    assert shown | {"flow": "device", "scope": "repo", "client_name": "acme", "hostname": "laptop"} == shown


def test_refresh_token_is_repeated_and_reuse_revokes(start_oauth: StartOAuth) -> None:
    """Within the window the same successor; after it, the login ends."""
    wire = start_oauth(replay_window_ms=6_000, outcome_wait_ms=2_600)
    first = wire.logged_in()["refresh_token"]
    second, again = [wire.refresh(first).json()["refresh_token"] for _ in range(2)]
    assert second == again
    third = wire.refresh(second).json()["refresh_token"]
    assert error(wire.refresh(first)) == (400, "invalid_grant")
    assert error(wire.refresh(third)) == (400, "invalid_grant")


def test_forged_refresh_token_does_nothing(oauth: OAuthWire) -> None:
    """Ids are public: a token made up for a login harms nobody."""
    token = oauth.logged_in()["refresh_token"]
    forged = token[:-54] + "x" * 54
    assert error(oauth.refresh(forged)) == (400, "invalid_grant")
    assert oauth.post(REVOKE, None, token=forged).status_code == httpx.codes.OK
    assert oauth.refresh(token).is_success


@pytest.mark.parametrize("kind", ["refresh_token", "access_token"])
def test_revocation_ends_the_login(oauth: OAuthWire, kind: str) -> None:
    """By either token; anything else is revoked already."""
    tokens = oauth.logged_in()
    for token in ("unknown", "lrd_" + "0" * 58, tokens[kind], tokens[kind]):
        response = oauth.post(REVOKE, None, token=token, token_type_hint="whatever")
        assert (response.status_code, response.content) == (200, b"")
    assert oauth.introspect(tokens["access_token"]) == {"active": False}
    assert error(oauth.refresh(tokens["refresh_token"])) == (400, "invalid_grant")
    assert error(oauth.post(REVOKE)) == (400, "invalid_request")


def test_introspection_knows_both_tokens(oauth: OAuthWire) -> None:
    """And nothing else."""
    tokens = oauth.logged_in()
    access, refresh = oauth.introspect(tokens["access_token"]), oauth.introspect(tokens["refresh_token"])
    for found in (access, refresh):
        assert found["active"] is True
        assert (found["sub"], found["scope"], found["iss"]) == ("ada", "cli repo", oauth.issuer)
        assert found["aud"] == found["client_id"] == oauth.project.project_id
    assert (access["token_type"], access["sid"]) == ("Bearer", refresh["sid"])
    assert oauth.introspect(tokens["access_token"][:-4] + "AAAA") == {"active": False}
    assert oauth.introspect("lrt_x") == {"active": False}


def test_page_of_an_allowed_origin_reads_the_answers(oauth: OAuthWire) -> None:
    """Errors too, once the client is known; no other page does."""
    for origin, allowed in ((ORIGIN, ORIGIN), ("https://evil.example", None)):
        for response in (
            oauth.post(DEVICE_AUTHORIZATION, {"origin": origin}),
            oauth.post(TOKEN, {"origin": origin}, grant_type="refresh_token", refresh_token="x"),
        ):
            assert response.headers.get("access-control-allow-origin") == allowed
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    preflight = oauth.client.options(TOKEN, headers={"origin": ORIGIN, **asked})
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert preflight.headers["access-control-allow-headers"] == "authorization"
