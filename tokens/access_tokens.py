"""Access tokens: JWTs (RFC 9068) that a project's resource servers check by themselves, with its public key set.

They live for minutes. Who must know at once whether a login was revoked asks the relay.
"""

import secrets
from collections.abc import Collection
from typing import Any, NamedTuple

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet

from runtime.errors import LoginRelayError
from tokens.signing_keys import ALGORITHM, SigningKeys

TYPE = "at+jwt"  # RFC 9068 §2.1: no other kind of JWT is one
TOKEN_ID_BYTES = 16  # of `jti`
MOST_CHARACTERS = 8_192  # of a token that is looked at; ours have some 600, and 2 000 with eight long resources


class InvalidAccessTokenError(LoginRelayError):
    """It is malformed, forged, expired, of another issuer, or for another audience."""


class ExpiredAccessTokenError(InvalidAccessTokenError):
    """It was a good one until `expired_at` (seconds since the epoch)."""

    def __init__(self, expired_at: int) -> None:
        super().__init__("expired")
        self.expired_at = expired_at


class Grant(NamedTuple):
    """What a login gives a tool."""

    project_id: str
    family_id: str
    """Of the refresh tokens of the same login; `sid` in the token."""
    subject: str
    client_id: str
    scope: str
    """Separated by spaces; may be empty."""
    audience: tuple[str, ...]
    """At least one. Ignored in Stack's form, whose audience is the project."""
    is_anonymous: bool = False
    key_thumbprint: str | None = None
    """Of the key that the token is bound to (RFC 9449 §6.1)."""


class AccessToken(msgspec.Struct, frozen=True):
    """The claims of a token that was checked. Times are in seconds since the epoch."""

    issuer: str = msgspec.field(name="iss")
    subject: str = msgspec.field(name="sub")
    audience: str | tuple[str, ...] = msgspec.field(name="aud")
    client_id: str
    issued_at: int = msgspec.field(name="iat")
    expires_at: int = msgspec.field(name="exp")
    token_id: str = msgspec.field(name="jti")
    scope: str
    family_id: str = msgspec.field(name="sid")
    is_anonymous: bool = False
    confirmation: dict[str, str] | None = msgspec.field(name="cnf", default=None)

    @property
    def audiences(self) -> tuple[str, ...]:
        """Everyone whom the token is for."""
        return (self.audience,) if isinstance(self.audience, str) else self.audience


class AccessTokens:
    """Signs and checks the access tokens of all projects."""

    def __init__(self, keys: SigningKeys, public_url: str, lifetime: int) -> None:
        """`public_url` is the relay's own origin, from the settings; `lifetime` is in seconds."""
        self._keys = keys
        self._public_url = public_url
        self.lifetime = lifetime

    def issuer(self, project_id: str, *, is_anonymous: bool = False) -> str:
        """Return the issuer of a project's tokens; those of anonymous users have another."""
        kind = "projects-anonymous-users" if is_anonymous else "projects"
        return f"{self._public_url}/api/v1/{kind}/{project_id}"

    def key_set(self, project_id: str, *, include_anonymous: bool = False) -> dict[str, list[dict[str, Any]]]:
        """Return the JSON Web Key Set of a project: the public keys of all master secrets, the signing one first."""
        keys = self._keys.of_project(project_id).public()
        if include_anonymous:
            keys += self._keys.of_anonymous(project_id).public()
        return {"keys": keys}

    def sign(self, grant: Grant, now: float) -> str:
        """Return an access token (RFC 9068 §2). `now` is in seconds since the epoch."""
        audience = list(grant.audience) if len(grant.audience) > 1 else grant.audience[0]
        return self._signed(grant, self._claims(grant, audience, now))

    def sign_for_stack(self, grant: Grant, now: float, signed_up_at: float) -> str:
        """Return an access token with the claims that Stack's SDK requires (`@stackframe/js` 2.8.77 to 2.8.108).

        The relay knows no users: what it cannot know is null or false. `signed_up_at` is in seconds since the epoch.
        """
        audience = f"{grant.project_id}:anon" if grant.is_anonymous else grant.project_id
        claims = self._claims(grant, audience, now) | {
            "project_id": grant.project_id,
            "branch_id": "main",
            "refresh_token_id": grant.family_id,
            "role": "authenticated",
            "name": None,
            "email": None,
            "email_verified": False,
            "selected_team_id": None,
            "signed_up_at": int(signed_up_at),
            "is_anonymous": grant.is_anonymous,
            "is_restricted": grant.is_anonymous,
            "restricted_reason": {"type": "anonymous"} if grant.is_anonymous else None,
            "requires_totp_mfa": False,
        }
        return self._signed(grant, claims)

    def verify(
        self, token: str, project_id: str, audiences: Collection[str], now: float, *, accept_anonymous: bool = False
    ) -> AccessToken:
        """Return the claims of a token of a project that is for one of `audiences`.

        An anonymous user's token is for `<project id>:anon` too, and is refused unless `accept_anonymous`.

        Raises:
            ExpiredAccessTokenError: it was valid, and for them.
            InvalidAccessTokenError: it never was. The message repeats nothing of it.

        """
        ring = self._keys.of_project(project_id)
        rings = (ring, self._keys.of_anonymous(project_id)) if accept_anonymous else (ring,)
        kid, found = _checked(token, [key for one in rings for key in one.keys])
        is_anonymous = kid not in ring.kids
        if found.issuer != self.issuer(project_id, is_anonymous=is_anonymous) or found.is_anonymous != is_anonymous:
            raise InvalidAccessTokenError("of another issuer")
        expected = {*audiences, f"{project_id}:anon"} if is_anonymous else set(audiences)
        if expected.isdisjoint(found.audiences):
            raise InvalidAccessTokenError("for another audience")
        if found.expires_at <= now:
            raise ExpiredAccessTokenError(found.expires_at)
        return found

    def _claims(self, grant: Grant, audience: str | list[str], now: float) -> dict[str, Any]:
        claims: dict[str, Any] = {
            "iss": self.issuer(grant.project_id, is_anonymous=grant.is_anonymous),
            "sub": grant.subject,
            "aud": audience,
            "client_id": grant.client_id,
            "iat": int(now),
            "exp": int(now) + self.lifetime,
            "jti": secrets.token_urlsafe(TOKEN_ID_BYTES),
            "scope": grant.scope,
            "sid": grant.family_id,
        }
        if grant.is_anonymous:
            claims["is_anonymous"] = True
        if grant.key_thumbprint is not None:
            claims["cnf"] = {"jkt": grant.key_thumbprint}
        return claims

    def _signed(self, grant: Grant, claims: dict[str, Any]) -> str:
        of = self._keys.of_anonymous if grant.is_anonymous else self._keys.of_project
        ring = of(grant.project_id)
        header = {"alg": ALGORITHM, "typ": TYPE, "kid": ring.kid}
        return jwt.encode(header, claims, ring.signer, algorithms=[ALGORITHM])


def _checked(token: str, keys: list[Key]) -> tuple[str, AccessToken]:
    """Return the id of the key that signed a token, and its claims.

    Raises:
        InvalidAccessTokenError: none of the keys signed it, or it is not an access token.

    """
    if len(token) > MOST_CHARACTERS:
        raise InvalidAccessTokenError("too long")
    try:
        decoded = jwt.decode(token, KeySet(keys), algorithms=[ALGORITHM])
        # The header is signed too. Without a kid joserfc tries the only key; such a token is none of ours (KeyError).
        if decoded.header.get("typ") != TYPE:
            raise InvalidAccessTokenError("not an access token")
        return str(decoded.header["kid"]), msgspec.convert(decoded.claims, AccessToken)
    except (JoseError, msgspec.ValidationError, ValueError, TypeError, KeyError):
        raise InvalidAccessTokenError("not a token of this project") from None
