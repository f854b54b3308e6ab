"""What clients find out by themselves (RFC 8414), and what they are told where OAuth is off."""

import httpx
import pytest

from tests.support.oauth_services import StartOAuth
from tests.support.oauth_wire import DEVICE_AUTHORIZATION, INTROSPECT, REVOKE, TOKEN, OAuthWire, error

PLACES = (
    "/.well-known/oauth-authorization-server/api/v1/projects/{}",
    "/api/v1/projects/{}/.well-known/oauth-authorization-server",
    "/api/v1/projects/{}/.well-known/openid-configuration",
)
CACHED = {"cache-control": "public, max-age=3600", "access-control-allow-origin": "*"}


@pytest.mark.parametrize("place", PLACES)
def test_metadata_is_at_each_place_that_clients_look(oauth: OAuthWire, place: str) -> None:
    """The same document, which may be cached and read by any page; the host of the request does not matter."""
    response = oauth.client.get(place.format(oauth.project.project_id), headers={"host": "evil.example"})
    assert dict(response.headers).items() >= CACHED.items()
    url = "https://relay.example"
    assert response.json() == {
        "issuer": oauth.issuer,
        "device_authorization_endpoint": f"{url}/oauth/device_authorization",
        "token_endpoint": f"{url}/oauth/token",
        "revocation_endpoint": f"{url}/oauth/revoke",
        "introspection_endpoint": f"{url}/oauth/introspect",
        "jwks_uri": f"{oauth.issuer}/.well-known/jwks.json",
        "scopes_supported": ["cli", "repo"],
        "response_types_supported": [],
        "grant_types_supported": ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
        "revocation_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "code_challenge_methods_supported": ["S256"],
    }


def test_keys_are_public(oauth: OAuthWire) -> None:
    """And nothing but public; those of anonymous users only if they are asked for."""
    at = f"/api/v1/projects/{oauth.project.project_id}/.well-known/jwks.json"
    response = oauth.client.get(at)
    assert dict(response.headers).items() >= CACHED.items()
    [key] = response.json()["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert len(oauth.client.get(f"{at}?include_anonymous=true").json()["keys"]) == 2


def test_unknown_project_has_no_metadata(oauth: OAuthWire) -> None:
    """404, as JSON, which is not cached."""
    for place in (*PLACES, "/api/v1/projects/{}/.well-known/jwks.json"):
        for project in ("00000000-0000-4000-8000-000000000000", "x"):
            response = oauth.client.get(place.format(project))
            assert error(response) == (404, "invalid_request")
            assert response.headers["cache-control"] == "no-store, max-age=0"


@pytest.mark.parametrize("missing", ["public_url", "keys_file"])
def test_oauth_is_off_without_a_public_url_or_keys(start_oauth: StartOAuth, missing: str) -> None:
    """Each endpoint says so, and which settings it needs; the other interface works."""
    wire = start_oauth(**{missing: None})
    project = wire.project.project_id
    for path in (DEVICE_AUTHORIZATION, TOKEN, REVOKE, INTROSPECT):
        response = wire.post(path)
        assert error(response) == (404, "invalid_request")
        assert "LOGIN_RELAY_PUBLIC_URL" in response.text
        assert "LOGIN_RELAY_KEYS_FILE" in response.text
    for place in PLACES:
        assert wire.client.get(place.format(project)).status_code == httpx.codes.NOT_FOUND
    assert wire.backend.poll(wire.backend.completed()).status_code == httpx.codes.CREATED
