"""docs/wire.md 10: a tool with an anonymous user logs in; the backend sees it, takes it over, or makes it somebody."""

import asyncio
import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api.stack.errors import (
    ANONYMOUS_OFF,
    INVALID_ANONYMOUS_TOKEN,
    INVALID_LOGIN_CODE,
    NO_ANONYMOUS_SESSION,
    NOT_ANONYMOUS,
)
from projects.project import Policy
from tests.support.redis_server import RedisServer
from tests.support.services import create_project
from tests.support.wire import CANCEL, INITIATE, Login, Wire

SIGN_UP, TOKEN, ME = "/auth/anonymous/sign-up", "/auth/oauth/token", "/users/me"


@pytest.fixture(scope="module")
def claiming_wire(signing_wire: Wire) -> Iterator[Wire]:
    """The service that signs, for a project whose backend may claim."""
    policy = Policy(claim_anonymous=True)
    project = asyncio.run(create_project(signing_wire.service.settings, "claiming", policy=policy))
    wire = Wire(signing_wire.service, project)
    with wire.client:
        yield wire


def signed_up(wire: Wire) -> dict[str, str]:
    """Return the tokens and the id of a new anonymous user."""
    found: dict[str, str] = wire.send("POST", SIGN_UP).json()
    return found


def claims(access_token: str) -> dict[str, Any]:
    """Return the claims of a token, unverified."""
    found: dict[str, Any] = json.loads(urlsafe_b64decode(access_token.split(".")[1] + "=="))
    return found


def refreshed(wire: Wire, refresh_token: str) -> dict[str, Any]:
    """Return the claims of a new access token."""
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_secret": "__stack_public_client__"}
    response = wire.client.post(f"/api/v1{TOKEN}", data={**form, "client_id": wire.project.project_id})
    assert response.status_code == 200, response.text
    return claims(response.json()["access_token"])


def check(wire: Wire, login: Login) -> object:
    """Return the state of a login's session."""
    return wire.complete(login, mode="check").json()


def claim(wire: Wire, login: Login, headers: dict[str, str] | None = None) -> httpx.Response:
    """Claim the anonymous session of a login's tool."""
    return wire.complete(login, headers or {}, mode="claim-anon-session")


def is_refused(response: httpx.Response, text: str) -> bool:
    """Return whether the answer is a 400 in these words."""
    return (response.status_code, response.text) == (400, text)


def test_login_of_an_anonymous_user_says_so(signing_wire: Wire) -> None:
    """To `check` and `inspect`; any other login is of nobody, and both go on as ever."""
    wire, user = signing_wire, signed_up(signing_wire)
    login, other = wire.initiate(anon_refresh_token=user["refresh_token"]), wire.initiate()
    assert check(wire, login) == {"cli_session_state": "anonymous"}
    assert wire.complete(login, mode="inspect").json()["cli_session_state"] == "anonymous"
    assert check(wire, other) == {"cli_session_state": "none"}
    assert wire.complete(login).json() == {}
    assert wire.poll(login).status_code == 201


@pytest.mark.parametrize("token", ["x", "", f"lrt_{'0' * 32}{'A' * 54}"])
def test_unknown_anonymous_token_is_refused(signing_wire: Wire, token: str) -> None:
    """And so is one of another project, or one that was signed out: never dropped silently."""
    wire = signing_wire
    response = wire.post(INITIATE, json={"anon_refresh_token": token}, headers=wire.client_headers)
    assert is_refused(response, INVALID_ANONYMOUS_TOKEN)


def test_anonymous_token_that_opens_nothing_here_is_refused(signing_wire: Wire, claiming_wire: Wire) -> None:
    """Another project's, and one that was signed out."""
    elsewhere, gone = signed_up(claiming_wire), signed_up(signing_wire)
    signing_wire.send("DELETE", "/auth/sessions/current", access_token=gone["access_token"], json={})
    for user in (elsewhere, gone):
        body = {"anon_refresh_token": user["refresh_token"]}
        response = signing_wire.post(INITIATE, json=body, headers=signing_wire.client_headers)
        assert is_refused(response, INVALID_ANONYMOUS_TOKEN)


def test_token_of_a_named_user_is_no_anonymous_one(signing_wire: Wire) -> None:
    """It is told from an unknown one: the tool shows its own token, so nobody learns anything."""
    opened = signing_wire.send("POST", "/auth/sessions", signing_wire.server_headers, json={"user_id": "ada"}).json()
    body = {"anon_refresh_token": opened["refresh_token"]}
    response = signing_wire.post(INITIATE, json=body, headers=signing_wire.client_headers)
    assert is_refused(response, NOT_ANONYMOUS)


def test_without_keys_there_are_no_anonymous_users(wire: Wire) -> None:
    """The refusal says what is missing."""
    response = wire.post(INITIATE, json={"anon_refresh_token": "x"}, headers=wire.client_headers)
    assert is_refused(response, ANONYMOUS_OFF)


def test_login_for_the_anonymous_user_itself_makes_it_somebody(signing_wire: Wire) -> None:
    """Its tokens stay, and so does its id: from then on they are those of a named user."""
    wire, user = signing_wire, signed_up(signing_wire)
    login = wire.initiate(anon_refresh_token=user["refresh_token"])
    assert wire.complete(login, subject=user["user_id"]).json() == {}
    for refresh_token in (user["refresh_token"], wire.poll(login).json()["refresh_token"]):
        found = refreshed(wire, refresh_token)
        assert (found["sub"], found["is_anonymous"], found["aud"]) == (user["user_id"], False, wire.project.project_id)
    again = wire.post(INITIATE, json={"anon_refresh_token": user["refresh_token"]}, headers=wire.client_headers)
    assert is_refused(again, NOT_ANONYMOUS)


def test_login_for_another_user_leaves_the_anonymous_one_alone(signing_wire: Wire) -> None:
    """What was done anonymously is the backend's to move."""
    wire, user = signing_wire, signed_up(signing_wire)
    for body in ({"subject": "ada"}, {}, {"refresh_token": "its-own", "subject": "ada"}):
        login = wire.initiate(anon_refresh_token=user["refresh_token"])
        assert wire.complete(login, **body).status_code == 200
        assert wire.poll(login).status_code == 201
        assert refreshed(wire, user["refresh_token"])["is_anonymous"] is True


def test_login_that_did_not_begin_with_an_anonymous_user_upgrades_none(signing_wire: Wire) -> None:
    """The subject alone is no proof that the tool has its session."""
    wire, user = signing_wire, signed_up(signing_wire)
    assert wire.complete(wire.initiate(), subject=user["user_id"]).json() == {}
    assert refreshed(wire, user["refresh_token"])["is_anonymous"] is True


def test_public_key_makes_nobody_somebody(signing_wire: Wire) -> None:
    """Where client access may complete, it may not say who somebody is."""
    project = asyncio.run(create_project(signing_wire.service.settings, "open-anon", allow_client_complete=True))
    wire = Wire(signing_wire.service, project)
    with wire.client:
        user = signed_up(wire)
        login = wire.initiate(anon_refresh_token=user["refresh_token"])
        body = {"login_code": login.login_code, "subject": user["user_id"]}
        assert wire.post("/auth/cli/complete", json=body, headers=wire.client_headers).json() == {}
        assert refreshed(wire, user["refresh_token"])["is_anonymous"] is True
        login = wire.initiate(anon_refresh_token=user["refresh_token"])
        body = {"login_code": login.login_code, "mode": "claim-anon-session"}
        response = wire.post("/auth/cli/complete", json=body, headers=wire.client_headers)
        assert (response.status_code, response.json()["code"]) == (401, "INSUFFICIENT_ACCESS_TYPE")


def test_repeated_completion_upgrades_too(signing_wire: Wire) -> None:
    """The answer to the first may have been lost: the same key gets the same answer."""
    wire, user = signing_wire, signed_up(signing_wire)
    login = wire.initiate(anon_refresh_token=user["refresh_token"])
    for _ in range(2):
        response = wire.complete(login, {"idempotency-key": login.login_code}, subject=user["user_id"])
        assert response.json() == {}
    assert refreshed(wire, user["refresh_token"])["is_anonymous"] is False


def test_backend_claims_the_session_of_the_tool_once(claiming_wire: Wire) -> None:
    """It gets the very token that the tool showed; a second claim gets nothing, and the login can be completed."""
    wire, user = claiming_wire, signed_up(claiming_wire)
    login = wire.initiate(anon_refresh_token=user["refresh_token"])
    assert check(wire, login) == {"cli_session_state": "anonymous"}
    response = claim(wire, login)
    assert response.status_code == 200
    claimed = response.json()
    assert claimed.keys() == {"access_token", "refresh_token"}
    assert claimed["refresh_token"] == user["refresh_token"]
    assert wire.send("GET", ME, access_token=claimed["access_token"]).json()["id"] == user["user_id"]
    assert is_refused(claim(wire, login), NO_ANONYMOUS_SESSION)
    assert check(wire, login) == {"cli_session_state": "anonymous"}
    assert wire.complete(login, subject=user["user_id"]).json() == {}
    assert refreshed(wire, user["refresh_token"])["is_anonymous"] is False


def test_claim_needs_a_project_that_asks_for_it(signing_wire: Wire) -> None:
    """By default nothing is kept that could be claimed."""
    login = signing_wire.initiate(anon_refresh_token=signed_up(signing_wire)["refresh_token"])
    assert is_refused(claim(signing_wire, login), NO_ANONYMOUS_SESSION)


def test_claim_of_another_login_or_project_gets_nothing(claiming_wire: Wire, signing_wire: Wire) -> None:
    """A login without an anonymous user has nothing to claim, and a code is of its project."""
    login = claiming_wire.initiate(anon_refresh_token=signed_up(claiming_wire)["refresh_token"])
    assert is_refused(claim(claiming_wire, claiming_wire.initiate()), NO_ANONYMOUS_SESSION)
    assert is_refused(claim(signing_wire, login), INVALID_LOGIN_CODE)
    assert claim(claiming_wire, Login(login.login_code.lower().replace("-", " "), "")).status_code == 200


def test_session_that_was_signed_out_cannot_be_claimed(claiming_wire: Wire) -> None:
    """Its token opens nothing."""
    wire, user = claiming_wire, signed_up(claiming_wire)
    login = wire.initiate(anon_refresh_token=user["refresh_token"])
    wire.send("DELETE", "/auth/sessions/current", access_token=user["access_token"], json={})
    assert is_refused(claim(wire, login), NO_ANONYMOUS_SESSION)


@pytest.mark.parametrize("end", ["complete", "deny", "cancel", "expire"])
def test_what_may_be_claimed_is_gone_with_the_pending_session(
    claiming_wire: Wire, redis_server: RedisServer, end: str
) -> None:
    """However it ends, nothing stays in Redis; while it is pending, the token is not there in clear."""
    wire, user = claiming_wire, signed_up(claiming_wire)
    lifetime = {"expires_in_millis": 1_000} if end == "expire" else {}
    login = wire.initiate(anon_refresh_token=user["refresh_token"], **lifetime)
    keys = wire.service.keys
    claimable = keys.claimable(login.polling_code[4:30])
    redis = redis_server.client()
    sealed = redis.get(claimable)
    if end != "expire":
        assert isinstance(sealed, bytes)
        assert user["refresh_token"].encode() not in sealed
    match end:
        case "complete":
            assert wire.complete(login).json() == {}
        case "deny":
            assert wire.complete(login, mode="deny").json() == {"success": True}
        case "cancel":
            body = {"polling_code": login.polling_code}
            assert wire.post(CANCEL, json=body, headers=wire.client_headers).json() == {}
        case "expire":
            wire.poll(login, prefer="wait=3")
    assert redis.get(claimable) is None
    assert is_refused(claim(wire, login), INVALID_LOGIN_CODE)
