"""`POST /oauth/introspect`: a resource server asks whether a token opens doors at this moment (RFC 7662).

An access token that verifies was valid when it was minted. This is the immediate check: a revoked login is not active.
"""

import time
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from api.oauth.clients import Client
from api.oauth.described import ACCESS_TOKEN, CLIENT_ID, operation, parameter
from api.oauth.errors import OAuthError, answer
from api.oauth.exchange import Exchange, PlainRefusals
from api.request.answer import Answer
from api.tokens.introspecting import Introspecting
from projects.project import Project
from runtime.codes import MINTED_TOKEN_PREFIX
from tokens.access_tokens import AccessToken, AccessTokens, InvalidAccessTokenError


class Active(msgspec.Struct, frozen=True, omit_defaults=True):
    """A token that opens doors (RFC 7662 §2.2). Times are in seconds since the epoch."""

    active: Annotated[bool, Meta(extra_json_schema={"const": True})]
    iss: str
    sub: str
    client_id: str
    scope: str
    aud: str | list[str]
    exp: int
    iat: int
    sid: Annotated[str, Meta(description="The login: the session's id.")]
    token_type: Literal["Bearer"] | None = None


class Inactive(msgspec.Struct, frozen=True):
    """Any other token: unknown, dead, another project's, or a backend's own."""

    active: Annotated[bool, Meta(extra_json_schema={"const": False})]


_INACTIVE = answer(msgspec.json.encode(Inactive(active=False)))


class IntrospectionEndpoint(PlainRefusals):
    """Answers resource servers."""

    operation = operation(
        "introspect",
        "Ask whether a token opens doors now (RFC 7662)",
        "For backends: the client's secret is the project's secret server key.",
        [Active, Inactive],
        {
            "active": {
                "active": True,
                "iss": f"https://relay.example.com/api/v1/projects/{CLIENT_ID}",
                "sub": "user:42",
                "client_id": CLIENT_ID,
                "scope": "cli",
                "aud": CLIENT_ID,
                "exp": 1_767_226_500,
                "iat": 1_767_226_200,
                "sid": "0084b16ba1cbbb1e5a92d2ff3d",
                "token_type": "Bearer",
            },
            "inactive": {"active": False},
        },
        [
            parameter("token", "An access token or a refresh token.", required=True, example=ACCESS_TOKEN),
            parameter("token_type_hint", "Ignored: tokens tell what they are."),
        ],
        ("invalid_request", "invalid_client"),
    )

    def __init__(self, introspecting: Introspecting, tokens: AccessTokens) -> None:
        self._introspecting = introspecting
        self._tokens = tokens

    async def answer(self, exchange: Exchange) -> Answer:
        """Return what is known of a token, or only that it is not active."""
        _, form, client = exchange
        token = form.get("token")
        if token is None:
            raise OAuthError("invalid_request", "Send token.")
        of = self._refresh_token if token.startswith(MINTED_TOKEN_PREFIX) else self._access_token
        found = await of(client, token)
        return _INACTIVE if found is None else answer(msgspec.json.encode(found))

    async def _refresh_token(self, client: Client, token: str) -> Active | None:
        found = await self._introspecting.by_token(client.project.id, token)
        if found is None:
            return None
        family = found.family
        return Active(
            active=True,
            iss=self._tokens.issuer(family.project_id, is_anonymous=family.anonymous),
            sub=family.subject,
            client_id=family.client_id,
            scope=family.scope,
            aud=family.audience or client.project.oauth.audience or client.project.id,
            exp=family.dies_at // 1000,
            iat=family.refreshed_at // 1000,
            sid=family.id,
        )

    async def _access_token(self, client: Client, token: str) -> Active | None:
        claims = verified(self._tokens, client.project, token)
        if claims is None or await self._introspecting.by_family(client.project.id, claims.family_id) is None:
            return None
        return Active(
            active=True,
            iss=claims.issuer,
            sub=claims.subject,
            client_id=claims.client_id,
            scope=claims.scope,
            aud=claims.audience if isinstance(claims.audience, str) else list(claims.audience),
            exp=claims.expires_at,
            iat=claims.issued_at,
            sid=claims.family_id,
            token_type="Bearer",  # noqa: S106 - a type, not a token
        )


def verified(tokens: AccessTokens, project: Project, token: str) -> AccessToken | None:
    """Return the claims of an access token of a project; None for any other text."""
    audiences = {project.id, project.oauth.audience} - {""}
    try:
        return tokens.verify(token, project.id, audiences, time.time(), accept_anonymous=True)
    except InvalidAccessTokenError:
        return None
