"""Attacks on OAuth logins and on the tokens that the relay mints: by strangers, thieves, forgers and neighbours."""

import contextlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from joserfc import jwt
from joserfc.errors import BadSignatureError
from joserfc.jwk import KeySet

from api.stack.admin_tokens import AdminTokens
from runtime.errors import SettingError
from runtime.settings import Settings
from tests.support.attacker import PROXIES, new_address
from tests.support.oauth_services import enter_oauth_wire, oauth_settings
from tests.support.oauth_wire import (
    DEVICE_AUTHORIZATION,
    DEVICE_CODE_GRANT,
    INTROSPECT,
    REVOKE,
    TOKEN,
    OAuthWire,
    error,
)
from tests.support.redis_server import RedisServer
from tests.support.services import StartService

LOGINS = 3  # that a project may start in this module's budgets
SECRET = "a-value-that-nobody-may-read-again"
ENDPOINTS = (DEVICE_AUTHORIZATION, TOKEN, REVOKE, INTROSPECT)


@pytest.fixture(scope="module")
def wires(
    start_shared: StartService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[OAuthWire, OAuthWire]]:
    """Two projects of one service with two API processes."""
    service = start_shared(apis=2, **oauth_settings(tmp_path_factory.mktemp("keys")))
    with contextlib.ExitStack() as stack:
        yield enter_oauth_wire(stack, service), enter_oauth_wire(stack, service)


@pytest.fixture
def victim(wires: tuple[OAuthWire, OAuthWire]) -> OAuthWire:
    """The project under attack."""
    return wires[0]


@pytest.fixture
def neighbour(wires: tuple[OAuthWire, OAuthWire]) -> OAuthWire:
    """Somebody with all the keys of another project on the same relay."""
    return wires[1]


def key_set(wire: OAuthWire) -> KeySet:
    """Return the public keys of a project, as a resource server reads them."""
    path = f"/api/v1/projects/{wire.project.project_id}/.well-known/jwks.json"
    return KeySet.import_key_set(wire.client.get(path).json())


def auth_for(wire: OAuthWire, path: str) -> httpx.Auth:
    """Return the credentials of a project's backend where they are needed."""
    is_needed = path == INTROSPECT
    return httpx.BasicAuth(wire.project.project_id, wire.project.secret_server_key if is_needed else "")


def claims_of(wire: OAuthWire, access_token: str) -> dict[str, object]:
    """Return the claims of a token with a right signature; whatever else is wrong with it."""
    return jwt.decode(access_token, key_set(wire), algorithms=["ES256"]).claims


def events(server: RedisServer, wire: OAuthWire, family_id: object) -> list[tuple[str, str]]:
    """Return the types of a login's events about its tokens, and why."""
    with server.client() as redis:
        entries = [fields for _, fields in redis.xrange(wire.service.keys.events(0))]
    return [
        (entry[b"type"].decode(), json.loads(entry[b"data"]).get("why", ""))
        for entry in entries
        if entry[b"subject"].decode() == family_id and not entry[b"type"].startswith(b"session.")
    ]


def test_strangers_without_a_key_start_only_so_many_logins(
    start_service: StartService, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The budgets of the project hold for all its callers, from many addresses too; other projects go on."""
    settings = oauth_settings(tmp_path_factory.mktemp("keys"))
    service = start_service(trusted_proxies=PROXIES, initiations_per_project=LOGINS, **settings)
    with contextlib.ExitStack() as stack:
        flooded, other = enter_oauth_wire(stack, service), enter_oauth_wire(stack, service)

        def start(wire: OAuthWire) -> httpx.Response:
            return wire.post(DEVICE_AUTHORIZATION, {"x-forwarded-for": new_address()})

        assert [start(flooded).status_code for _ in range(LOGINS)] == [200] * LOGINS
        assert error(start(flooded)) == (429, "temporarily_unavailable")
        assert flooded.backend.post("/auth/cli", headers=flooded.project.client_headers).status_code == 429
        assert start(other).status_code == 200


def test_a_stolen_refresh_token_ends_the_login_for_both(redis_server: RedisServer, victim: OAuthWire) -> None:
    """Owner and thief have the same token: who uses it after the other went on ends it, and events say so."""
    tokens = victim.logged_in()
    family_id = victim.introspect(tokens["access_token"])["sid"]
    second = victim.refresh(tokens["refresh_token"]).json()["refresh_token"]
    newest = victim.refresh(second).json()["refresh_token"]
    assert error(victim.refresh(tokens["refresh_token"])) == (400, "invalid_grant")
    assert error(victim.refresh(newest)) == (400, "invalid_grant")
    assert events(redis_server, victim, family_id) == [
        ("family.opened", ""),
        ("family.revoked", "reuse"),
        ("audit.token_reused", ""),
    ]


def test_a_forged_token_of_a_known_login_harms_nobody(
    redis_server: RedisServer, victim: OAuthWire, neighbour: OAuthWire
) -> None:
    """Ids are public. Made up, put together from a token of one's own, or of another generation: it does nothing."""
    token, own = victim.logged_in()["refresh_token"], victim.logged_in()["refresh_token"]
    for generation, rest in itertools.product((token[30:36], "000001", "ffffff"), ("x" * 54, own[36:])):
        forged = token[:30] + generation + rest
        assert error(victim.refresh(forged)) == (400, "invalid_grant")
        assert victim.post(REVOKE, None, token=forged).status_code == 200
        assert victim.introspect(forged) == {"active": False}
    assert error(neighbour.refresh(token)) == (400, "invalid_grant")
    assert victim.refresh(token).is_success
    assert events(redis_server, victim, token[4:30]) == [("family.opened", "")]


def test_an_access_token_outlives_its_revocation_by_its_life_alone(victim: OAuthWire) -> None:
    """Where only its signature is checked. Introspection says at once that it is over, at every process."""
    tokens = victim.logged_in()
    tokens = victim.refresh(tokens["refresh_token"]).json()
    assert victim.post(REVOKE, None, token=tokens["refresh_token"]).is_success
    claims = claims_of(victim, tokens["access_token"])
    assert isinstance(claims["exp"], int)
    assert isinstance(claims["iat"], int)
    assert claims["exp"] - claims["iat"] == tokens["expires_in"] == victim.service.settings.access_token_lifetime_s
    for url in victim.service.urls:
        auth = (victim.project.project_id, victim.project.secret_server_key)
        told = httpx.post(url + INTROSPECT, data={"token": tokens["access_token"]}, auth=auth, trust_env=False)
        assert told.json() == {"active": False}
    assert error(victim.refresh(tokens["refresh_token"])) == (400, "invalid_grant")


def test_tokens_of_a_project_open_nothing_of_another(victim: OAuthWire, neighbour: OAuthWire) -> None:
    """Another project's client and backend are told nothing, can end nothing, and its keys verify nothing."""
    tokens = victim.logged_in()
    for token in (tokens["access_token"], tokens["refresh_token"]):
        assert neighbour.introspect(token) == {"active": False}
        assert neighbour.post(REVOKE, None, token=token).status_code == 200
        assert victim.introspect(token)["active"] is True
    assert error(neighbour.refresh(tokens["refresh_token"])) == (400, "invalid_grant")
    for key in key_set(neighbour).keys:
        with pytest.raises(BadSignatureError):  # also where only the signature is checked, and no kid
            jwt.decode(tokens["access_token"], key, algorithms=["ES256"])
    assert not {key.kid for key in key_set(victim)} & {key.kid for key in key_set(neighbour)}
    started = victim.start()
    assert victim.approve(started).is_success
    assert error(neighbour.ask(started)) == (400, "invalid_grant")


def test_one_kind_of_token_is_not_taken_for_another(victim: OAuthWire) -> None:
    """A device code, a refresh token and an access token, each in the place of each other one."""
    started = victim.start()
    tokens = victim.logged_in()
    for token in (started["device_code"], tokens["access_token"], started["user_code"]):
        assert error(victim.refresh(token)) == (400, "invalid_grant")
        assert victim.introspect(token)["active"] is (token == tokens["access_token"])
    for token in (tokens["refresh_token"], tokens["access_token"], started["user_code"]):
        asked = victim.post(TOKEN, None, grant_type=DEVICE_CODE_GRANT, device_code=token)
        assert error(asked) == (400, "invalid_grant")
    assert error(victim.ask(started)) == (400, "authorization_pending")
    assert victim.refresh(tokens["refresh_token"]).is_success


def test_an_access_token_of_the_relay_administers_nothing(
    victim: OAuthWire, start_service: StartService, tmp_path: Path
) -> None:
    """Not even where somebody trusts the relay's own keys: its issuers are refused at the start."""
    access_token = victim.logged_in()["access_token"]
    keys = tmp_path / "jwks.json"
    keys.write_text(json.dumps(key_set(victim).as_dict(private=False)))
    trust = {"admin_jwks_file": str(keys), "admin_audience": victim.project.project_id}
    settings = oauth_settings(tmp_path) | trust
    with pytest.raises(SettingError, match="ADMIN_ISSUER"):
        AdminTokens.from_settings(msgspec.convert({**settings, "admin_issuer": victim.issuer}, Settings))
    service = start_service(**settings, admin_issuer="https://id.example")
    headers = {"x-stack-project-id": service.project.project_id, "x-stack-admin-access-token": access_token}
    answer = httpx.post(f"{service.url}/api/v1/auth/cli", headers=headers, trust_env=False)
    assert answer.status_code == 401
    assert answer.json()["code"] == "UNPARSABLE_ADMIN_ACCESS_TOKEN"


@pytest.mark.parametrize("name", ["host", "x-forwarded-host", "x-forwarded-proto", "forwarded"])
def test_no_header_chooses_the_issuer(victim: OAuthWire, name: str) -> None:
    """Metadata, links and tokens name the address of the settings, whatever a request or a proxy says."""
    evil = {name: {"forwarded": "host=evil.example", "x-forwarded-proto": "gopher"}.get(name, "evil.example")}
    place = f"/.well-known/oauth-authorization-server/api/v1/projects/{victim.project.project_id}"
    metadata = victim.client.get(place, headers=evil)
    assert metadata.json()["issuer"] == victim.issuer
    assert not any(word in metadata.text for word in ("evil", "gopher"))
    started = victim.post(DEVICE_AUTHORIZATION, evil)
    assert victim.approve(started.json()).is_success
    asked = victim.ask(started.json(), evil)
    assert claims_of(victim, asked.json()["access_token"])["iss"] == victim.issuer
    assert not any(word in started.text + asked.text for word in ("evil", "gopher"))


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("name", ["refresh_token", "device_code", "token", "client_secret", "anything"])
def test_parameters_in_the_query_are_refused_and_never_logged(victim: OAuthWire, path: str, name: str) -> None:
    """A URI ends up in logs, so a secret in one is not to work by chance."""
    auth = auth_for(victim, path)
    form = {"client_id": victim.project.project_id, "token": "x", "grant_type": "refresh_token", "refresh_token": "x"}
    answer = victim.client.post(path, params={name: SECRET}, data=form, auth=auth)
    assert error(answer) == (400, "invalid_request")
    assert SECRET not in answer.text + str(answer.headers)
    assert SECRET not in victim.service.output


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize(
    "name", ["grant_type", "refresh_token", "device_code", "code_verifier", "scope", "token", "client_id", "hostname"]
)
def test_no_answer_repeats_what_was_sent(victim: OAuthWire, path: str, name: str) -> None:
    """A value may be a secret in the wrong place; names of the form, too, are of the sender."""
    auth = auth_for(victim, path)
    form = {"client_id": victim.project.project_id, "grant_type": "refresh_token", "refresh_token": "lrt_x"}
    for given in ({name: SECRET}, {SECRET: SECRET}, {name: [SECRET, SECRET]}):
        answer = victim.client.post(path, data=form | given, auth=auth)
        assert SECRET not in answer.text + str(answer.headers)
    assert SECRET not in victim.service.output
