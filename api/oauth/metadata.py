"""What clients and resource servers find out by themselves: a project's metadata (RFC 8414) and its public keys.

The issuer hangs below `LOGIN_RELAY_PUBLIC_URL`, never below the `Host` of a request: an attacker would choose it.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.spec import PathItem
from litestar.response.base import ASGIResponse
from msgspec import Meta

from api.oauth.described import public_document
from api.oauth.errors import NOTHING_HERE, OFF, OAuthError, of_error
from projects.project import Project
from tokens.access_tokens import AccessTokens

ISSUER_PATH = "/api/v1/projects/{project_id:str}"
METADATA_PATHS = (
    f"/.well-known/oauth-authorization-server{ISSUER_PATH}",  # RFC 8414 §3.1: the issuer's path comes behind it
    f"{ISSUER_PATH}/.well-known/oauth-authorization-server",  # what clients ask for too
    f"{ISSUER_PATH}/.well-known/openid-configuration",  # RFC 8414 §5; the default of openid-client and oidc-agent
)
JWKS_PATH = f"{ISSUER_PATH}/.well-known/jwks.json"
MAX_AGE = 3_600  # seconds; keys are published so long before the first of them signs
DEVICE_CODE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"  # RFC 8628 §3.4
REFRESH_GRANT = "refresh_token"

_CACHED = {
    "cache-control": f"public, max-age={MAX_AGE}",
    "access-control-allow-origin": "*",  # nothing here depends on who asks
    "content-type": "application/json",
}


class Metadata(msgspec.Struct, frozen=True):
    """What a project's authorization server can do (RFC 8414 §2)."""

    issuer: Annotated[str, Meta(description="`iss` of the access tokens, byte for byte.")]
    device_authorization_endpoint: str
    token_endpoint: str
    revocation_endpoint: str
    introspection_endpoint: str
    jwks_uri: str
    scopes_supported: list[str]
    response_types_supported: Annotated[list[str], Meta(description="None: there is no authorization endpoint.")]
    grant_types_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]
    revocation_endpoint_auth_methods_supported: list[str]
    introspection_endpoint_auth_methods_supported: list[str]
    code_challenge_methods_supported: list[str]


class KeySet(msgspec.Struct, frozen=True):
    """The public keys of a project (RFC 7517 §5)."""

    keys: list[dict[str, Any]]


def metadata(project: Project, tokens: AccessTokens, public_url: str) -> Metadata:
    """Return the metadata of a project."""
    issuer = tokens.issuer(project.id)
    endpoint = f"{public_url}/oauth"
    with_secret = ["client_secret_basic", "client_secret_post"]
    return Metadata(
        issuer,
        f"{endpoint}/device_authorization",
        f"{endpoint}/token",
        f"{endpoint}/revoke",
        f"{endpoint}/introspect",
        f"{issuer}/.well-known/jwks.json",
        list(project.oauth.scopes),
        [],
        [DEVICE_CODE_GRANT, REFRESH_GRANT],
        ["none", *with_secret],
        ["none", *with_secret],
        with_secret,
        ["S256"],
    )


_ID = "7f6a8a4e-52a1-4c6c-9d1f-0a8f3f1f6f52"
_URL = "https://relay.example.com"
_ISSUER = f"{_URL}/api/v1/projects/{_ID}"
_EXAMPLE = {
    "issuer": _ISSUER,
    "device_authorization_endpoint": f"{_URL}/oauth/device_authorization",
    "token_endpoint": f"{_URL}/oauth/token",
    "revocation_endpoint": f"{_URL}/oauth/revoke",
    "introspection_endpoint": f"{_URL}/oauth/introspect",
    "jwks_uri": f"{_ISSUER}/.well-known/jwks.json",
    "scopes_supported": ["cli"],
    "response_types_supported": [],
    "grant_types_supported": [DEVICE_CODE_GRANT, REFRESH_GRANT],
    "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
    "revocation_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
    "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
    "code_challenge_methods_supported": ["S256"],
}


def path_items() -> dict[str, PathItem]:
    """Return the descriptions of these operations by their paths, for the OpenAPI document."""
    described = {
        path: public_document(name, "Find out what a project's OAuth can do (RFC 8414)", Metadata, _EXAMPLE)
        for name, path in zip(("metadata", "metadata_behind", "metadata_of_openid"), METADATA_PATHS, strict=True)
    }
    keys = {"keys": [{"kty": "EC", "crv": "P-256", "kid": "a-thumbprint", "use": "sig", "alg": "ES256"}]}
    described[JWKS_PATH] = public_document("jwks", "Get the public keys of a project (RFC 7517)", KeySet, keys)
    return {path.replace(":str", ""): PathItem(get=operation) for path, operation in described.items()}


ReadProject = Callable[[str], Awaitable[tuple[Project | None, int]]]


def metadata_endpoints(
    read_project: ReadProject, tokens: AccessTokens | None, public_url: str | None
) -> list[HTTPRouteHandler]:
    """Return the handlers of metadata and keys. Without `tokens` and `public_url` they say that OAuth is off."""

    @get(list(METADATA_PATHS))
    async def of_metadata(request: Request[Any, Any, Any]) -> ASGIResponse:
        if tokens is None or public_url is None:
            return _nothing(OFF)
        project, _ = await read_project(request.path_params["project_id"])
        if project is None or not project.oauth.can_log_in:
            return _nothing(NOTHING_HERE)
        return ASGIResponse(body=msgspec.json.encode(metadata(project, tokens, public_url)), headers=_CACHED)

    @get(JWKS_PATH)
    async def of_keys(request: Request[Any, Any, Any]) -> ASGIResponse:
        if tokens is None:
            return _nothing(OFF)
        project, _ = await read_project(request.path_params["project_id"])
        if project is None:
            return _nothing(NOTHING_HERE)
        anonymous = request.query_params.get("include_anonymous") == "true"
        keys = tokens.key_set(project.id, include_anonymous=anonymous)
        return ASGIResponse(body=msgspec.json.encode(keys), headers=_CACHED)

    return [of_metadata, of_keys]


def _nothing(text: str) -> ASGIResponse:
    found = of_error(OAuthError("invalid_request", text, status=404))
    return ASGIResponse(
        body=found.body,
        status_code=404,
        headers={"content-type": "application/json", "access-control-allow-origin": "*"},
    )
