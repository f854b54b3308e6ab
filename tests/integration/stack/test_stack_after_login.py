"""docs/wire.md 10: what Stack's clients call after the login: access tokens, the user, and the user's sessions."""

import json
import time
import uuid
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError
from joserfc.jwk import KeySet

from api.stack.errors import NO_SUCH_SESSION, OTHER_USER, TOKENS_OFF, TOO_MANY_SESSIONS
from runtime.master_secrets import read_master_secrets
from tests.support.eventually import wait_until
from tests.support.oauth_services import ORIGIN, oauth_settings
from tests.support.oauth_wire import OAuthWire
from tests.support.wire import StartWire, Wire
from tokens.access_tokens import AccessTokens, Grant
from tokens.signing_keys import SigningKeys

TOKEN, ME, SESSIONS = "/auth/oauth/token", "/users/me", "/auth/sessions"
CURRENT, REFRESH, SIGN_UP = f"{SESSIONS}/current", f"{SESSIONS}/current/refresh", "/auth/anonymous/sign-up"
PUBLIC = "__stack_public_client__"
DEAD = (401, "REFRESH_TOKEN_NOT_FOUND_OR_EXPIRED")
EXPIRED = (401, "ACCESS_TOKEN_EXPIRED")
UNPARSABLE = (401, "UNPARSABLE_ACCESS_TOKEN")
UNKNOWN = f"lrt_{'0' * 26}{'0' * 6}{'A' * 54}"
ALL = [
    *(("POST", TOKEN), ("GET", ME), ("GET", SESSIONS), ("POST", SESSIONS), ("DELETE", SESSIONS), ("DELETE", CURRENT)),
    *(("POST", REFRESH), ("DELETE", f"{SESSIONS}/{'0' * 26}"), ("POST", SIGN_UP)),
]


class LoggedIn(NamedTuple):
    """The tokens of a login."""

    refresh_token: str
    access_token: str

    @property
    def session(self) -> str:
        """The id of the session."""
        found: str = claims(self.access_token)["refresh_token_id"]
        return found


def outcome(response: httpx.Response) -> tuple[int, str | None]:
    """Return the status and the known error; the client has checked that header and body agree."""
    return response.status_code, response.headers.get("x-stack-known-error")


def claims(access_token: str) -> dict[str, Any]:
    """Return the claims of a token, unverified."""
    found: dict[str, Any] = json.loads(urlsafe_b64decode(access_token.split(".")[1] + "=="))
    return found


def key_set(wire: Wire, *, include_anonymous: bool = False) -> KeySet:
    """Return the public keys of the project."""
    path = f"{wire.service.url}/api/v1/projects/{wire.project.project_id}/.well-known/jwks.json"
    query = {"include_anonymous": "true"} if include_anonymous else {}
    return KeySet.import_key_set(httpx.get(path, params=query, trust_env=False).json())


def refresh(wire: Wire, refresh_token: str, prefix: str = "/api/v1", **form: str) -> httpx.Response:
    """Refresh as the SDK does: a form, and no headers of the interface."""
    given = {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "client_id": wire.project.project_id,
        "client_secret": wire.project.publishable_client_key,
    }
    return wire.client.post(prefix + TOKEN, data=given | form)


def logged_in(wire: Wire, subject: str | None = None) -> LoggedIn:
    """Do a whole login for a subject, a new one unless it is given."""
    login = wire.initiate()
    assert wire.complete(login, subject=subject or f"user:{uuid.uuid4()}").json() == {}
    refresh_token = wire.poll(login).json()["refresh_token"]
    return LoggedIn(refresh_token, refresh(wire, refresh_token).json()["access_token"])


def signed(wire: Wire, session: str, now: float, **grant: Any) -> str:  # noqa: ANN401 - of a grant
    """Return an access token of a session that the service signs at another time."""
    assert wire.service.settings.keys_file
    secrets = read_master_secrets(Path(wire.service.settings.keys_file))
    tokens = AccessTokens(SigningKeys(lambda: secrets), wire.service.settings.public_url or "", 300)
    project_id = wire.project.project_id
    of = Grant(project_id, session, "ada", project_id, "", (project_id,))._replace(**grant)
    return tokens.sign_for_stack(of, now, now)


def listed(wire: Wire, access_token: str | None, headers: dict[str, str] | None = None, user: str = "me") -> Any:  # noqa: ANN401 - JSON
    """Return the sessions in a list."""
    response = wire.send("GET", f"{SESSIONS}?user_id={quote(user)}", headers, access_token=access_token)
    assert response.status_code == 200, response.text
    return response.json()["items"]


@pytest.mark.parametrize("prefix", ["/api/v1", "/api/latest"])
@pytest.mark.parametrize("secret", [PUBLIC, None])
def test_refresh_token_opens_doors_and_stays(signing_wire: Wire, prefix: str, secret: str | None) -> None:
    """By form or JSON, with the publishable key or the word of those that have none; nothing replaces the token."""
    wire, before = signing_wire, logged_in(signing_wire, "ada")
    form = {} if secret is None else {"client_secret": secret}
    response = refresh(wire, before.refresh_token, prefix, **form)
    assert response.status_code == 200
    assert response.json().keys() == {"access_token", "token_type", "expires_in"}
    assert (response.json()["token_type"], response.json()["expires_in"]) == ("Bearer", 300)
    body = {
        "grant_type": "refresh_token",
        "refresh_token": before.refresh_token,
        "client_id": wire.project.project_id,
        "client_secret": secret or wire.project.publishable_client_key,
    }
    assert wire.client.post(prefix + TOKEN, json=body).json()["token_type"] == "Bearer"


def test_access_token_says_what_the_sdk_checks(signing_wire: Wire) -> None:
    """It verifies with the project's key set, and has every claim that the SDK's schema requires."""
    wire, project_id = signing_wire, signing_wire.project.project_id
    tokens = logged_in(wire, "ada")
    found = jwt.decode(tokens.access_token, key_set(wire), algorithms=["ES256"]).claims
    assert (
        found.items()
        >= {
            "iss": f"https://relay.example/api/v1/projects/{project_id}",
            "sub": "ada",
            "aud": project_id,
            "project_id": project_id,
            "branch_id": "main",
            "role": "authenticated",
            "is_anonymous": False,
            "is_restricted": False,
            "restricted_reason": None,
            "name": None,
            "email": None,
            "email_verified": False,
            "selected_team_id": None,
            "requires_totp_mfa": False,
        }.items()
    )
    assert abs(found["signed_up_at"] - time.time()) < 60
    assert found["refresh_token_id"] == listed(wire, tokens.access_token)[0]["id"]


@pytest.mark.parametrize("token", [UNKNOWN, "rt1", "lrt_", "", "eyJ.eyJ.x"])
def test_dead_refresh_token_is_a_known_error_with_its_real_status(signing_wire: Wire, token: str) -> None:
    """The SDK signs out on it; on `invalid_grant` it would fail."""
    response = refresh(signing_wire, token)
    assert outcome(response) == DEAD
    assert response.json() == {
        "code": DEAD[1],
        "error": "Refresh token not found for this project, or the session has expired/been revoked.",
    }


def test_forged_refresh_token_is_told_as_a_dead_one_and_does_nothing(signing_wire: Wire) -> None:
    """A session's id is no secret, so a token with it must not end the session."""
    tokens = logged_in(signing_wire)
    assert outcome(refresh(signing_wire, f"lrt_{tokens.session}{'0' * 6}{'A' * 54}")) == DEAD
    assert refresh(signing_wire, tokens.refresh_token).status_code == 200


def test_refresh_token_is_of_its_project(signing_wire: Wire) -> None:
    """Another project's client cannot use it."""
    tokens = logged_in(signing_wire)
    other = signing_wire.service.project
    response = refresh(
        signing_wire, tokens.refresh_token, client_id=other.project_id, client_secret=other.publishable_client_key
    )
    assert outcome(response) == DEAD
    response = signing_wire.send("GET", ME, other.client_headers, access_token=tokens.access_token)
    assert outcome(response) == UNPARSABLE


def test_rotating_token_of_an_oauth_client_is_left_alone(signing_oauth: OAuthWire) -> None:
    """A client of this interface would ignore the new token, and the login would be lost."""
    tokens = signing_oauth.logged_in()
    wire = signing_oauth.backend
    assert outcome(refresh(wire, tokens["refresh_token"])) == DEAD
    assert outcome(wire.send("GET", ME, access_token=tokens["access_token"])) == UNPARSABLE
    assert outcome(wire.send("DELETE", CURRENT, access_token=tokens["access_token"], json={})) == DEAD
    assert signing_oauth.refresh(tokens["refresh_token"]).status_code == 200


@pytest.mark.parametrize(
    "form",
    [
        {"client_secret": "pck_wrong"},
        {"client_id": "00000000-0000-4000-8000-000000000000", "client_secret": PUBLIC},
        {"client_id": "acme"},
    ],
)
def test_wrong_client_is_refused(signing_wire: Wire, form: dict[str, str]) -> None:
    """The project's id and its publishable key, or the word of public clients."""
    assert outcome(refresh(signing_wire, UNKNOWN, **form)) == (400, "INVALID_OAUTH_CLIENT_ID_OR_SECRET")


@pytest.mark.parametrize(
    ("content", "content_type", "code"),
    [
        (b"grant_type=refresh_token", "application/x-www-form-urlencoded", "SCHEMA_ERROR"),
        (
            b"grant_type=password&refresh_token=a&client_id=b&client_secret=c",
            "application/x-www-form-urlencoded",
            "SCHEMA_ERROR",
        ),
        (b"grant_type=refresh_token&grant_type=refresh_token", "application/x-www-form-urlencoded", "SCHEMA_ERROR"),
        (b"refresh_token=%ff", "application/x-www-form-urlencoded", "BODY_PARSING_ERROR"),
        (b"grant_type", "application/x-www-form-urlencoded", "BODY_PARSING_ERROR"),
        (b"{", "application/json", "BODY_PARSING_ERROR"),
        (b"{}", "application/json", "SCHEMA_ERROR"),
        (b"grant_type=refresh_token", "text/plain", "BODY_PARSING_ERROR"),
    ],
)
def test_body_that_is_no_refresh_is_refused(signing_wire: Wire, content: bytes, content_type: str, code: str) -> None:
    """What is wrong is said; no value of it is repeated."""
    response = signing_wire.client.post(f"/api/v1{TOKEN}", content=content, headers={"content-type": content_type})
    assert outcome(response) == (400, code)
    assert "password" not in response.text


def test_refresh_token_in_the_query_is_refused(signing_wire: Wire) -> None:
    """A URI may be logged."""
    response = signing_wire.client.post(f"/api/v1{TOKEN}?refresh_token=a", data={"grant_type": "refresh_token"})
    assert outcome(response) == (400, "SCHEMA_ERROR")


def test_pages_of_the_project_may_refresh_and_sign_out(signing_wire: Wire) -> None:
    """The form names the project where headers do elsewhere; preflights name the methods of the path."""
    tokens = logged_in(signing_wire)
    for token in (tokens.refresh_token, UNKNOWN):
        form = {"grant_type": "refresh_token", "refresh_token": token, "client_secret": PUBLIC}
        form["client_id"] = signing_wire.project.project_id
        for origin in (ORIGIN, "https://other.example"):
            response = signing_wire.client.post(f"/api/v1{TOKEN}", data=form, headers={"origin": origin})
            assert response.headers.get("access-control-allow-origin") == (ORIGIN if origin == ORIGIN else None)
    asked = {"origin": ORIGIN, "access-control-request-method": "DELETE"}
    for path, methods in ((CURRENT, "DELETE"), (SESSIONS, "GET, POST, DELETE"), (TOKEN, "POST"), (ME, "GET")):
        response = signing_wire.client.options(f"/api/v1{path}", headers=asked)
        assert (response.status_code, response.headers["access-control-allow-methods"]) == (204, methods)


def test_user_is_the_subject_of_the_login(signing_wire: Wire) -> None:
    """With the fields that the SDK reads; what the relay cannot know is empty."""
    tokens = logged_in(signing_wire, "ada")
    response = signing_wire.send("GET", ME, access_token=tokens.access_token)
    assert response.status_code == 200
    assert (
        response.json().items()
        >= {
            "id": "ada",
            "primary_email": None,
            "display_name": None,
            "is_anonymous": False,
            "oauth_providers": [],
            "selected_team": None,
        }.items()
    )


def test_nobody_is_me_without_an_access_token(signing_wire: Wire) -> None:
    """The SDK takes that answer for null; other operations ask for the user."""
    for headers in (signing_wire.client_headers, signing_wire.server_headers):
        assert outcome(signing_wire.send("GET", ME, headers)) == (400, "CANNOT_GET_OWN_USER_WITHOUT_USER")
        for method, path in (("DELETE", CURRENT), ("GET", f"{SESSIONS}?user_id=me")):
            assert outcome(signing_wire.send(method, path, headers)) == (401, "USER_AUTHENTICATION_REQUIRED")


@pytest.mark.parametrize("token", ["x", "eyJhbGciOiJub25lIn0.e30.", "{refresh}", "{cut}"])
def test_access_token_that_is_none_is_unparsable(signing_wire: Wire, token: str) -> None:
    """Also a refresh token, and a token whose signature was cut."""
    tokens = logged_in(signing_wire)
    shown = token.format(refresh=tokens.refresh_token, cut=tokens.access_token[:-4])
    for method, path in (("GET", ME), ("DELETE", CURRENT), ("GET", f"{SESSIONS}?user_id=me")):
        assert outcome(signing_wire.send(method, path, access_token=shown)) == UNPARSABLE


def test_access_token_expires(signing_wire: Wire) -> None:
    """The SDK refreshes on it, and asks again; the answer has the time when it expired."""
    tokens = logged_in(signing_wire)
    shown = signed(signing_wire, tokens.session, time.time() - 400)
    for method, path in (("GET", ME), ("DELETE", CURRENT), ("GET", f"{SESSIONS}?user_id=me")):
        response = signing_wire.send(method, path, access_token=shown)
        assert outcome(response) == EXPIRED
        assert response.json()["details"] == {"expired_at_millis": claims(shown)["exp"] * 1000}
    assert refresh(signing_wire, tokens.refresh_token).status_code == 200


def test_signing_out_ends_the_session(signing_wire: Wire) -> None:
    """Its refresh token is dead, and its access token counts as expired at once; signing out again says it is gone."""
    wire, tokens = signing_wire, logged_in(signing_wire)
    response = wire.send("DELETE", CURRENT, access_token=tokens.access_token, json={})
    assert (response.status_code, response.json()) == (200, {"success": True})
    assert outcome(refresh(wire, tokens.refresh_token)) == DEAD
    assert outcome(wire.send("GET", ME, access_token=tokens.access_token)) == EXPIRED
    assert outcome(wire.send("DELETE", CURRENT, access_token=tokens.access_token, json={})) == DEAD


def test_user_sees_where_they_are_logged_in_and_ends_another_session(signing_wire: Wire) -> None:
    """The latest session comes first; the current one is marked, and ends by signing out alone."""
    wire, subject = signing_wire, f"user:{uuid.uuid4()}"
    first, second = logged_in(wire, subject), logged_in(wire, subject)
    found = listed(wire, second.access_token)
    assert [(item["id"], item["is_current_session"]) for item in found] == [
        (second.session, True),
        (first.session, False),
    ]
    assert {item["user_id"] for item in found} == {subject}
    assert all(abs(item["created_at"] / 1000 - time.time()) < 60 for item in found)
    assert found == listed(wire, second.access_token, user=subject)

    def end(session: str) -> httpx.Response:
        return wire.send("DELETE", f"{SESSIONS}/{session}?user_id=me", access_token=second.access_token)

    assert outcome(end(second.session)) == (400, "CANNOT_DELETE_CURRENT_SESSION")
    assert end(first.session).json() == {"success": True}
    assert outcome(refresh(wire, first.refresh_token)) == DEAD
    assert [item["id"] for item in listed(wire, second.access_token)] == [second.session]
    for session in (first.session, logged_in(wire).session, "0" * 26, "x"):
        response = end(session)
        assert (response.status_code, response.text) == (404, NO_SUCH_SESSION)


def test_user_may_not_ask_for_another(signing_wire: Wire) -> None:
    """Neither where another is logged in, nor that they be logged out."""
    wire, ada, bob = signing_wire, logged_in(signing_wire), logged_in(signing_wire)
    whose = quote(claims(bob.access_token)["sub"])
    for method, path in (("GET", SESSIONS), ("DELETE", f"{SESSIONS}/{bob.session}")):
        response = wire.send(method, f"{path}?user_id={whose}", access_token=ada.access_token)
        assert (response.status_code, response.text) == (403, OTHER_USER)
    assert outcome(wire.send("GET", f"{SESSIONS}?user_id={whose}")) == (401, "USER_AUTHENTICATION_REQUIRED")
    response = wire.send("DELETE", f"{SESSIONS}?user_id={whose}", access_token=bob.access_token)
    assert outcome(response) == (401, "INSUFFICIENT_ACCESS_TYPE")
    assert refresh(wire, bob.refresh_token).status_code == 200


@pytest.mark.parametrize("query", ["", "?user_id=", "?user_id=a&user_id=b", f"?user_id={'a' * 257}", "?user_id=%ff"])
def test_list_needs_one_user(signing_wire: Wire, query: str) -> None:
    """Without one it would be of everybody."""
    for method in ("GET", "DELETE"):
        response = signing_wire.send(method, SESSIONS + query, signing_wire.server_headers)
        assert outcome(response) == (400, "SCHEMA_ERROR")


def test_backend_sees_and_ends_any_session(signing_wire: Wire) -> None:
    """With the server key, by the user's id; one session, or all of them."""
    wire, subject = signing_wire, f"user:{uuid.uuid4()}"
    sessions = [logged_in(wire, subject) for _ in range(3)]
    bystander = logged_in(wire)
    found = listed(wire, None, wire.server_headers, subject)
    assert [item["id"] for item in found] == [tokens.session for tokens in reversed(sessions)]
    assert not any(item["is_current_session"] for item in found)
    of_one = f"{SESSIONS}/{sessions[0].session}?user_id={quote(subject)}"
    assert wire.send("DELETE", of_one, wire.server_headers).json() == {"success": True}
    assert outcome(refresh(wire, sessions[0].refresh_token)) == DEAD
    for _ in range(2):
        response = wire.send("DELETE", f"{SESSIONS}?user_id={quote(subject)}", wire.server_headers)
        assert (response.status_code, response.json()) == (200, {"success": True})
    for tokens in sessions:
        assert outcome(refresh(wire, tokens.refresh_token)) == DEAD
        assert outcome(wire.send("GET", ME, access_token=tokens.access_token)) == EXPIRED
    assert listed(wire, None, wire.server_headers, subject) == []
    assert refresh(wire, bystander.refresh_token).status_code == 200


def test_nobody_is_logged_out_everywhere_by_the_word_me(signing_wire: Wire) -> None:
    """It would be a cut-off for a user of that name."""
    response = signing_wire.send("DELETE", f"{SESSIONS}?user_id=me", signing_wire.server_headers)
    assert outcome(response) == (400, "SCHEMA_ERROR")


async def test_backend_opens_a_session(signing_wire: Wire) -> None:
    """For any user, as long as it says: its tokens are those of a login."""
    wire, subject = signing_wire, f"user:{uuid.uuid4()}"
    body = {"user_id": subject, "expires_in_millis": 1_000, "is_impersonation": False}
    response = wire.send("POST", SESSIONS, wire.server_headers, json=body)
    assert response.status_code == 200
    tokens = LoggedIn(**response.json())
    assert wire.send("GET", ME, access_token=tokens.access_token).json()["id"] == subject
    await wait_until(lambda: outcome(refresh(wire, tokens.refresh_token)) == DEAD)
    body = {"user_id": subject}
    tokens = LoggedIn(**wire.send("POST", SESSIONS, wire.server_headers, json=body).json())
    assert refresh(wire, tokens.refresh_token).status_code == 200
    assert outcome(wire.send("POST", SESSIONS, json=body)) == (401, "INSUFFICIENT_ACCESS_TYPE")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user_id": ""},
        {"user_id": "a\u200b"},
        {"user_id": "a" * 257},
        {"user_id": "ada", "is_impersonation": True},
        {"user_id": "ada", "expires_in_millis": 367 * 86_400_000 + 1},
        {"user_id": "ada", "expires_in_millis": 0},
        {"user_id": "ada", "admin": True},
    ],
)
def test_session_that_cannot_be_is_refused(signing_wire: Wire, body: dict[str, object]) -> None:
    """What the relay would have to drop is said, and never dropped."""
    response = signing_wire.send("POST", SESSIONS, signing_wire.server_headers, json=body)
    assert outcome(response) == (400, "SCHEMA_ERROR")


@pytest.mark.parametrize("prefix", ["/api/v1", "/api/latest"])
def test_refresh_token_in_a_header_gets_an_access_token(signing_wire: Wire, prefix: str) -> None:
    """In either spelling; a dead one as everywhere."""
    wire, tokens = signing_wire, logged_in(signing_wire)
    for spelling in ("x-stack-refresh-token", "x-hexclave-refresh-token"):
        headers = {**wire.client_headers, spelling: tokens.refresh_token}
        found = wire.send("POST", REFRESH, headers, prefix).json()
        assert found.keys() == {"access_token"}
        assert claims(found["access_token"])["refresh_token_id"] == tokens.session
        assert outcome(wire.send("POST", REFRESH, {**headers, spelling: UNKNOWN}, prefix)) == DEAD
    assert outcome(wire.send("POST", REFRESH, None, prefix)) == (400, "SCHEMA_ERROR")


def test_anonymous_user_has_a_session_of_its_own_kind(signing_wire: Wire) -> None:
    """Its token is of another issuer, audience and key: who does not ask for anonymous users never accepts one."""
    wire, project_id = signing_wire, signing_wire.project.project_id
    response = wire.send("POST", SIGN_UP)
    assert response.status_code == 200
    found = response.json()
    assert str(uuid.UUID(found["user_id"])) == found["user_id"]
    with pytest.raises(InvalidKeyIdError):
        jwt.decode(found["access_token"], key_set(wire), algorithms=["ES256"])
    token = jwt.decode(found["access_token"], key_set(wire, include_anonymous=True), algorithms=["ES256"]).claims
    assert (
        token.items()
        >= {
            "iss": f"https://relay.example/api/v1/projects-anonymous-users/{project_id}",
            "aud": f"{project_id}:anon",
            "sub": found["user_id"],
            "is_anonymous": True,
            "is_restricted": True,
            "restricted_reason": {"type": "anonymous"},
        }.items()
    )
    me = wire.send("GET", ME, access_token=found["access_token"]).json()
    assert (me["id"], me["is_anonymous"], me["restricted_reason"]) == (found["user_id"], True, {"type": "anonymous"})
    again = refresh(wire, found["refresh_token"]).json()["access_token"]
    assert claims(again)["is_anonymous"] is True
    assert wire.send("DELETE", CURRENT, access_token=again, json={}).json() == {"success": True}
    assert outcome(refresh(wire, found["refresh_token"])) == DEAD


def test_anonymous_users_are_limited_as_logins_are(
    start_wire: StartWire, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Anybody may ask for one: past the budget of the address there is none."""
    wire = start_wire(initiations_per_address=2, **oauth_settings(tmp_path_factory.mktemp("keys")))
    for _ in range(2):
        assert wire.send("POST", SIGN_UP).status_code == 200
    response = wire.send("POST", SIGN_UP)
    assert (response.status_code, response.text) == (429, TOO_MANY_SESSIONS)
    assert int(response.headers["retry-after"]) >= 1
    assert wire.initiate()


@pytest.mark.parametrize("prefix", ["/api/v1", "/api/latest"])
@pytest.mark.parametrize(("method", "path"), ALL)
def test_without_keys_each_says_that_it_is_off(wire: Wire, method: str, path: str, prefix: str) -> None:
    """A relay without LOGIN_RELAY_KEYS_FILE and LOGIN_RELAY_PUBLIC_URL signs no access tokens."""
    response = wire.send(method, path, None, prefix, json={})
    assert (response.status_code, response.text) == (404, TOKENS_OFF)


@pytest.mark.parametrize("spelling", ["x-stack-", "x-hexclave-"])
def test_every_error_can_be_asked_for_with_status_200(signing_wire: Wire, spelling: str) -> None:
    """As everywhere in this interface (docs/wire.md 2): the SDK asks for it."""
    headers = {**signing_wire.client_headers, f"{spelling}override-error-status": "true"}
    response = signing_wire.send("GET", ME, headers)
    assert (response.status_code, response.headers[f"{spelling}actual-status"]) == (200, "400")
    assert response.json()["code"] == "CANNOT_GET_OWN_USER_WITHOUT_USER"
