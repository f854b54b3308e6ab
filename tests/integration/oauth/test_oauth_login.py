"""One login of an OAuth client (RFC 8628)."""

import httpx
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.support.oauth_wire import PAGE, OAuthWire, error


def test_login_refresh_and_revocation(oauth: OAuthWire) -> None:
    """From both codes to the end of the login, with what each answer must have."""
    started = oauth.start(scope="repo openid")
    assert started["verification_uri"] == PAGE
    assert started["verification_uri_complete"] == f"{PAGE}?user_code={started['user_code']}"
    assert started | {"expires_in": 900, "interval": 2} == started
    assert error(oauth.ask(started)) == (400, "authorization_pending")
    assert oauth.approve(started).json() == {}
    response = oauth.ask(started)
    assert response.status_code == httpx.codes.OK
    tokens = response.json()
    assert (tokens["token_type"], tokens["expires_in"], tokens["scope"]) == ("Bearer", 300, "repo")
    keys = KeySet.import_key_set(
        oauth.client.get(f"/api/v1/projects/{oauth.project.project_id}/.well-known/jwks.json").json()
    )
    claims = jwt.decode(tokens["access_token"], keys, algorithms=["ES256"]).claims
    assert claims["iss"] == oauth.issuer
    assert (claims["sub"], claims["scope"], claims["sid"]) == ("ada", "repo", started["session_id"])
    assert claims["aud"] == claims["client_id"] == oauth.project.project_id
    assert error(oauth.ask(started)) == (400, "invalid_grant")
    response = oauth.refresh(tokens["refresh_token"])
    assert response.status_code == httpx.codes.OK, response.text + oauth.service.output
    refreshed = response.json()
    assert refreshed["refresh_token"] != tokens["refresh_token"]
    assert oauth.introspect(refreshed["access_token"])["active"] is True
    assert oauth.post("/oauth/revoke", token=refreshed["refresh_token"]).status_code == httpx.codes.OK
    assert oauth.introspect(refreshed["access_token"]) == {"active": False}
    assert error(oauth.refresh(refreshed["refresh_token"])) == (400, "invalid_grant")
