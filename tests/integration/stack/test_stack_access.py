"""docs/wire.md 1, 2 and 6 (access): paths, spellings of headers, the rights of each access type."""

import base64
import hmac
import json
import time
from collections.abc import Callable

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from tests.support.wire import AUDIENCE, COMPLETE, ENDPOINTS, INITIATE, ISSUER, KEYS, POLL, StartWire, Wire

CLIENT_KEY, SERVER_KEY, ADMIN_KEY = KEYS
PREFIXES = ("x-stack-", "x-hexclave-")
KEY_CODES = {
    CLIENT_KEY: ("client", "INVALID_PUBLISHABLE_CLIENT_KEY", "PUBLISHABLE_CLIENT_KEY_REQUIRED_FOR_PROJECT"),
    SERVER_KEY: ("server", "INVALID_SECRET_SERVER_KEY", "SERVER_AUTHENTICATION_REQUIRED"),
    ADMIN_KEY: ("admin", "INVALID_SUPER_SECRET_ADMIN_KEY", "ADMIN_AUTHENTICATION_REQUIRED"),
}
UNPARSABLE = "UNPARSABLE_ADMIN_ACCESS_TOKEN"
NO_PROJECT = "00000000-0000-4000-8000-000000000000"
MakeToken = Callable[..., str]


def outcome(response: httpx.Response) -> tuple[int, str | None]:
    """Return the status and the known error; the client has checked that header and body agree."""
    return response.status_code, response.headers.get("x-stack-known-error")


@pytest.mark.parametrize("prefix", ["/api/v1", "/api/latest"])
def test_a_login_goes_through_under_either_path(wire: Wire, prefix: str) -> None:
    """The two prefixes name the same endpoints (docs/wire.md 1)."""
    session = wire.post(INITIATE, prefix, headers=wire.client_headers).json()
    assert wire.post(COMPLETE, prefix, json={"login_code": session["login_code"]}).json() == {}
    response = wire.post(POLL, prefix, json={"polling_code": session["polling_code"]}, headers=wire.client_headers)
    assert (response.status_code, response.json()["status"]) == (201, "success")


def test_a_login_may_change_its_path_midway(wire: Wire) -> None:
    """A session started under one prefix is the same under the other."""
    session = wire.post(INITIATE, "/api/latest", headers=wire.client_headers).json()
    body = {"polling_code": session["polling_code"]}
    assert wire.post(POLL, "/api/v1", json=body).json() == {"status": "waiting"}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("key", KEYS)
def test_every_header_is_read_in_either_spelling(wire: Wire, prefix: str, key: str) -> None:
    """Project, access type and each key, all in the old or all in the new spelling (docs/wire.md 2)."""
    headers = wire.headers(key, prefix=prefix, access_type=KEY_CODES[key][0])
    assert outcome(wire.post(INITIATE, headers=headers)) == (200, None)
    headers = wire.headers(key, prefix=prefix, access_type="root")
    assert outcome(wire.post(INITIATE, headers=headers)) == (400, "INVALID_ACCESS_TYPE")


def test_spellings_may_be_mixed(wire: Wire) -> None:
    """One header in the old and another in the new spelling."""
    headers = {
        "x-hexclave-project-id": wire.project.project_id,
        "x-stack-secret-server-key": wire.project.secret_server_key,
        "x-hexclave-access-type": "server",
    }
    assert outcome(wire.post(INITIATE, headers=headers)) == (200, None)


@pytest.mark.parametrize(
    ("name", "wrong", "refusal"),
    [
        ("project-id", NO_PROJECT, (400, "CURRENT_PROJECT_NOT_FOUND")),
        ("access-type", "root", (400, "INVALID_ACCESS_TYPE")),
        (SERVER_KEY, "ssk_wrong", (401, "INVALID_SECRET_SERVER_KEY")),
    ],
)
def test_the_x_stack_spelling_wins(wire: Wire, name: str, wrong: str, refusal: tuple[int, str]) -> None:
    """If both are sent, the other one is not read (docs/wire.md 2)."""
    right = wire.headers(SERVER_KEY, access_type="server")
    value = right[f"x-stack-{name}"]
    both_right_first = right | {f"x-hexclave-{name}": wrong}
    both_wrong_first = right | {f"x-stack-{name}": wrong, f"x-hexclave-{name}": value}
    assert outcome(wire.post(INITIATE, headers=both_right_first)) == (200, None)
    assert outcome(wire.post(INITIATE, headers=both_wrong_first)) == refusal


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_caller_must_say_who_it_is(wire: Wire, path: str) -> None:
    """Neither an access type nor a key: the project alone identifies nobody."""
    assert outcome(wire.post(path, headers=wire.headers())) == (400, "ACCESS_TYPE_REQUIRED")
    assert outcome(wire.post(path, headers={})) == (400, "ACCESS_TYPE_REQUIRED")
    assert outcome(wire.post(path, headers=wire.headers(access_type=""))) == (400, "ACCESS_TYPE_REQUIRED")


@pytest.mark.parametrize("access_type", ["root", "Client", "SERVER", "client,server", "\xe9"])
def test_access_type_is_one_of_three(wire: Wire, access_type: str) -> None:
    """Exactly as they are written, in lower case."""
    headers = {name: value.encode("latin-1") for name, value in wire.headers(*KEYS, access_type=access_type).items()}
    response = wire.post(INITIATE, headers={name.encode(): value for name, value in headers.items()})
    assert outcome(response) == (400, "INVALID_ACCESS_TYPE")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("named", [True, False])
def test_a_project_must_be_named(wire: Wire, key: str, named: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """The error names the access type, whether it was sent or derived from the key."""
    access_type = KEY_CODES[key][0]
    headers = wire.headers(key, project_id="", **({"access_type": access_type} if named else {}))
    response = wire.post(INITIATE, headers=headers)
    assert outcome(response) == (400, "ACCESS_TYPE_WITHOUT_PROJECT_ID")
    assert response.json()["details"] == {"request_type": access_type}


@pytest.mark.parametrize("project_id", [NO_PROJECT, "internal", "x" * 300, "*", "a{b}c", "../..", "\xff"])
def test_an_unknown_project_is_not_found(wire: Wire, project_id: str) -> None:
    """Whatever its id is; the details repeat it."""
    headers = {
        name.encode(): value.encode("latin-1") for name, value in wire.headers(*KEYS, project_id=project_id).items()
    }
    response = wire.post(INITIATE, headers=headers)
    assert outcome(response) == (400, "CURRENT_PROJECT_NOT_FOUND")
    assert response.json()["details"] == {"project_id": project_id}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_wrong_key_is_refused(wire: Wire, open_wire: Wire, path: str, key: str) -> None:
    """An invented one, one of another kind, one of another project: all get the same answer."""
    access_type, invalid, _ = KEY_CODES[key]
    of_another_kind = wire.keys[KEYS[KEYS.index(key) - 1]]
    for wrong in ("wrong", of_another_kind, open_wire.keys[key], wire.keys[key] + "x", wire.keys[key].upper()):
        for named in ({}, {"access_type": access_type}):
            response = wire.post(path, headers=wire.headers(**{key: wrong}, **named))
            assert outcome(response) == (401, invalid)
            assert response.json()["details"] == {"project_id": wire.project.project_id}
            assert wrong not in response.text


@pytest.mark.parametrize("key", KEYS)
def test_a_named_access_type_needs_its_own_key(wire: Wire, key: str) -> None:
    """The keys of other types, even stronger ones, do not replace it."""
    access_type, _, missing = KEY_CODES[key]
    others = [other for other in KEYS if other != key]
    response = wire.post(INITIATE, headers=wire.headers(*others, access_type=access_type))
    assert outcome(response) == (401, missing)
    expected = {"project_id": wire.project.project_id} if key == CLIENT_KEY else None
    assert response.json().get("details") == expected


@pytest.mark.parametrize(
    ("sent", "decides"),
    [
        ((CLIENT_KEY,), CLIENT_KEY),
        ((CLIENT_KEY, SERVER_KEY), SERVER_KEY),
        ((SERVER_KEY, ADMIN_KEY), ADMIN_KEY),
        ((CLIENT_KEY, SERVER_KEY, ADMIN_KEY), ADMIN_KEY),
    ],
)
def test_without_an_access_type_the_strongest_key_decides(wire: Wire, sent: tuple[str, ...], decides: str) -> None:
    """As in the documentation's own curl; if that key is wrong, a weaker right one does not help."""
    wrong = {name: "wrong" for name in sent if name != decides}
    assert outcome(wire.post(INITIATE, headers=wire.headers(decides, **wrong))) == (200, None)
    right = [name for name in sent if name != decides]
    response = wire.post(INITIATE, headers=wire.headers(*right, **{decides: "wrong"}))
    assert outcome(response) == (401, KEY_CODES[decides][1])


@pytest.mark.parametrize("key", KEYS)
def test_initiate_and_poll_take_every_access(wire: Wire, key: str) -> None:
    """Client access or higher (docs/wire.md 3 and 4)."""
    session = wire.post(INITIATE, headers=wire.headers(key)).json()
    body = {"polling_code": session["polling_code"]}
    assert wire.post(POLL, json=body, headers=wire.headers(key)).json() == {"status": "waiting"}


@pytest.mark.parametrize("key", [SERVER_KEY, ADMIN_KEY])
def test_complete_takes_server_and_admin_access(wire: Wire, key: str) -> None:
    """Server access or higher (docs/wire.md 5)."""
    login = wire.initiate()
    assert wire.post(COMPLETE, json={"login_code": login.login_code}, headers=wire.headers(key)).json() == {}


def test_complete_refuses_client_access(wire: Wire) -> None:
    """By default a tool's own key completes nothing, whatever the body; the error names the access that can."""
    login = wire.initiate()
    bodies: list[object] = [{"login_code": login.login_code}, {"login_code": login.login_code, "mode": "check"}, {}, []]
    for body in bodies:
        response = wire.post(COMPLETE, json=body, headers=wire.client_headers)
        assert outcome(response) == (401, "INSUFFICIENT_ACCESS_TYPE")
        assert response.json()["details"] == {
            "actual_access_type": "client",
            "allowed_access_types": ["server", "admin"],
        }
    assert wire.poll(login).json() == {"status": "waiting"}


def test_a_project_may_let_client_access_complete(open_wire: Wire) -> None:
    """As some clients do from the browser (docs/wire.md 7)."""
    login = open_wire.initiate()
    headers = open_wire.headers(CLIENT_KEY, access_type="client")
    body = {"login_code": login.login_code, "refresh_token": "rt"}
    assert open_wire.post(COMPLETE, json=body, headers=headers).json() == {"success": True}
    assert open_wire.poll(login).json() == {"status": "success", "refresh_token": "rt"}


def test_override_follows_the_spelling_that_wins(wire: Wire) -> None:
    """`false` in the old spelling beats `true` in the new one."""
    for headers, status in (
        ({"x-stack-override-error-status": "true"}, 200),
        ({"x-hexclave-override-error-status": "true"}, 200),
        ({"x-stack-override-error-status": "false", "x-hexclave-override-error-status": "true"}, 400),
        ({"x-stack-override-error-status": "true", "x-hexclave-override-error-status": "false"}, 200),
        ({"x-stack-override-error-status": "1"}, 400),
    ):
        response = wire.post(INITIATE, headers=headers)
        assert outcome(response) == (status, "ACCESS_TYPE_REQUIRED")
        assert response.headers["x-stack-actual-status"] == "400"


@pytest.fixture
def make_token(wire: Wire, admin_keys: KeySet) -> MakeToken:
    """Make a valid admin access token, or one with other claims (None omits one), key or algorithm."""

    def make(key: ECKey | None = None, kid: str = "ec", algorithm: str = "ES256", **claims: object) -> str:
        kept = {name: claim for name, claim in {**good_claims(wire), **claims}.items() if claim is not None}
        signing = key or admin_keys.get_by_kid(kid)
        return jwt.encode({"alg": algorithm, "kid": kid}, kept, signing, algorithms=[algorithm])

    return make


def good_claims(wire: Wire) -> dict[str, object]:
    """Return the claims of a valid admin access token."""
    now = int(time.time())
    return {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 60, "project_ids": [wire.project.project_id]}


def unsigned(header: object, claims: object) -> str:
    """Return a token without a signature."""
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims))
    return ".".join([*parts, ""])


@pytest.mark.parametrize(("kid", "algorithm"), [("ec", "ES256"), ("ed", "Ed25519")])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_an_admin_access_token_gives_admin_access(
    wire: Wire, make_token: MakeToken, prefix: str, kid: str, algorithm: str
) -> None:
    """For each project that it lists, signed with any key of the issuer; no other key is needed."""
    token = make_token(
        kid=kid, algorithm=algorithm, project_ids=[NO_PROJECT, wire.project.project_id], exp=time.time() + 60.5
    )
    headers = wire.headers(prefix=prefix, admin_access_token=token)
    assert outcome(wire.post(INITIATE, headers=headers)) == (200, None)
    login = wire.initiate()
    assert wire.post(COMPLETE, json={"login_code": login.login_code}, headers=headers).json() == {}
    assert outcome(wire.post(INITIATE, headers={**headers, f"{prefix}access-type": "admin"})) == (200, None)


def test_a_forged_admin_access_token_is_refused(wire: Wire, make_token: MakeToken, admin_keys: KeySet) -> None:
    """Another issuer's key, no signature, the public key as a shared secret, a changed claim, not a token at all."""
    claims = good_claims(wire)
    good = make_token()
    head, payload, signature = good.split(".")
    public_key = admin_keys.get_by_kid("ec")
    assert isinstance(public_key, ECKey)
    public_pem = public_key.as_pem(private=False)
    attacker = ECKey.generate_key("P-256", {"kid": "ec"})
    to_sign, _, _ = unsigned({"alg": "HS256", "kid": "ec"}, claims).rpartition(".")
    mac = base64.urlsafe_b64encode(hmac.digest(public_pem, to_sign.encode(), "sha256")).rstrip(b"=").decode()
    forged = {
        "another key": make_token(key=attacker),
        "alg none": unsigned({"alg": "none", "kid": "ec"}, claims),
        "no signature": f"{head}.{payload}.",
        "public key as secret": f"{to_sign}.{mac}",
        "changed claims": f"{head}.{unsigned({}, claims | {'exp': 9_999_999_999}).split('.')[1]}.{signature}",
        "unknown key id": make_token(key=attacker, kid="other"),
        "own key in header": jwt.encode(
            {"alg": "ES256", "kid": "ec", "jwk": attacker.as_dict(private=False)},
            claims,
            attacker,
            algorithms=["ES256"],
        ),
        "text": "let-me-in",
        "dots": "..",
        "encrypted": unsigned({"alg": "dir", "enc": "A128GCM"}, {}) + "AA.AA",
    }
    for how, token in forged.items():
        # A right key beside it does not help: a token that is sent is never ignored.
        response = wire.post(INITIATE, headers=wire.headers(*KEYS, admin_access_token=token))
        assert outcome(response) == (401, UNPARSABLE), how
        assert token == ".." or token not in response.text


@pytest.mark.parametrize("exp", [None, "9999999999", True, float("nan"), float("inf"), -float("inf"), -5, 1e300])
def test_an_admin_access_token_without_an_end_is_refused(wire: Wire, make_token: MakeToken, exp: object) -> None:
    """It must have `exp`, and as a time."""
    response = wire.post(INITIATE, headers=wire.headers(admin_access_token=make_token(exp=exp)))
    assert outcome(response) == (401, UNPARSABLE)


@pytest.mark.parametrize(
    "claims",
    [
        *({"iss": issuer} for issuer in (None, "", "https://other.example", f"{ISSUER}/", [ISSUER], 1)),
        *({"aud": audience} for audience in (None, "", [], "other", AUDIENCE.upper(), ["other"], {AUDIENCE: 1}, 1)),
    ],
    ids=str,
)
def test_an_admin_access_token_of_another_issuer_or_audience_is_refused(
    wire: Wire, make_token: MakeToken, claims: dict[str, object]
) -> None:
    """A token that the same keys signed for another service is not accepted here (RFC 7519 §4.1.1, §4.1.3)."""
    response = wire.post(INITIATE, headers=wire.headers(admin_access_token=make_token(**claims)))
    assert outcome(response) == (401, UNPARSABLE)


def test_an_admin_access_token_may_have_several_audiences(wire: Wire, make_token: MakeToken) -> None:
    """The relay's must be among them."""
    token = make_token(aud=["other", AUDIENCE])
    assert outcome(wire.post(INITIATE, headers=wire.headers(admin_access_token=token))) == (200, None)


def test_an_admin_access_token_may_live_no_longer_than_the_setting(wire: Wire, make_token: MakeToken) -> None:
    """From `iat` to `exp`: an hour passes; a second more does not, nor do the 31 years of a token that never ends."""
    now = int(time.time())
    for life, answer in ((3_600, (200, None)), (3_601, (401, UNPARSABLE)), (10**9, (401, UNPARSABLE))):
        token = make_token(iat=now, exp=now + life)
        assert outcome(wire.post(INITIATE, headers=wire.headers(admin_access_token=token))) == answer, life


@pytest.mark.parametrize("iat", [None, "0", True, float("nan"), float("-inf"), -1])
def test_an_admin_access_token_without_a_beginning_is_refused(wire: Wire, make_token: MakeToken, iat: object) -> None:
    """Without `iat` its length of life is unknown."""
    response = wire.post(INITIATE, headers=wire.headers(admin_access_token=make_token(iat=iat)))
    assert outcome(response) == (401, UNPARSABLE)


@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_an_admin_access_token_is_not_valid_before_its_time(wire: Wire, make_token: MakeToken, claim: str) -> None:
    """Neither before `iat`, nor before `nbf` where the issuer sets it (RFC 7519 §4.1.5); clocks may be 5 s apart."""
    now = time.time()
    for begins_in, answer in ((-30, (200, None)), (3, (200, None)), (20, (401, UNPARSABLE))):
        token = make_token(**{claim: now + begins_in, "exp": now + 60})
        assert outcome(wire.post(INITIATE, headers=wire.headers(admin_access_token=token))) == answer, begins_in
    for no_time in ("0", float("nan")):
        token = make_token(**{claim: no_time})
        assert outcome(wire.post(INITIATE, headers=wire.headers(admin_access_token=token))) == (401, UNPARSABLE)


def test_an_expired_admin_access_token_says_when(wire: Wire, make_token: MakeToken) -> None:
    """In milliseconds."""
    ended_at = int(time.time()) - 1
    response = wire.post(INITIATE, headers=wire.headers(admin_access_token=make_token(exp=ended_at)))
    assert outcome(response) == (401, "ADMIN_ACCESS_TOKEN_EXPIRED")
    assert response.json()["details"] == {"expired_at_millis": ended_at * 1000}


def test_an_admin_access_token_is_for_the_projects_it_lists(wire: Wire, open_wire: Wire, make_token: MakeToken) -> None:
    """Not for another project, and not if the claim is not a list."""
    response = open_wire.post(INITIATE, headers=open_wire.headers(*KEYS, admin_access_token=make_token()))
    assert outcome(response) == (401, "ADMIN_ACCESS_TOKEN_IS_NOT_ADMIN")
    for project_ids in (
        [],
        None,
        wire.project.project_id,
        {wire.project.project_id: True},
        [[wire.project.project_id]],
    ):
        token = make_token(project_ids=project_ids)
        response = wire.post(INITIATE, headers=wire.headers(admin_access_token=token))
        assert outcome(response) == (401, "ADMIN_ACCESS_TOKEN_IS_NOT_ADMIN")


def test_without_a_key_file_every_admin_access_token_is_refused(start_wire: StartWire, make_token: MakeToken) -> None:
    """It is never ignored, whatever other right keys are sent."""
    wire = start_wire(workers=0)
    token = make_token(project_ids=[wire.project.project_id])
    response = wire.post(INITIATE, headers=wire.headers(*KEYS, admin_access_token=token))
    assert outcome(response) == (401, UNPARSABLE)
    assert outcome(wire.post(INITIATE, headers=wire.headers(*KEYS))) == (200, None)
