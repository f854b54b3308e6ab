"""Admin access tokens: JWTs checked against public keys in a file, for the projects that a claim lists."""

import time
from pathlib import Path
from typing import NamedTuple

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from api.stack.errors import KnownError
from runtime.errors import SettingError
from runtime.settings import Settings, variable

ALGORITHMS = ["EdDSA", "Ed25519", "ES256", "ES384", "RS256", "PS256"]
"""Signatures with a public key only: with a shared secret, anyone who can verify could also sign."""

END_OF_ERA = 253_402_300_800  # seconds; the year 10 000. Infinities and what is no number (NaN) stay outside

CLOCK_LEEWAY = 5.0
"""Seconds that the issuer's clock may be ahead of this machine's. `doctor` reports a clock more than 2 s from that of
Redis, so two machines that pass it are at most 4 s apart. Only a token's beginning has a leeway; its end has none."""


class Trust(NamedTuple):
    """Whose tokens are accepted, and which."""

    keys: KeySet
    issuer: str
    audience: str
    max_age: int
    """Longest life of a token in seconds."""
    projects_claim: str


class AdminTokens:
    """Checks admin access tokens; without trust in anybody it refuses every one."""

    def __init__(self, trust: Trust | None) -> None:
        self._trust = trust

    @classmethod
    def from_settings(cls, settings: Settings) -> "AdminTokens":
        """Read the key file that the settings name.

        Raises:
            SettingError: the file cannot be read or holds no JWKS with public keys, or issuer or audience is not set.

        """
        if settings.admin_jwks_file is None:
            return cls(None)
        name = variable("admin_jwks_file")
        # Without them, what the same keys signed for another service would open this one (RFC 8725 §3.8, §3.9).
        issuer, audience = settings.admin_issuer, settings.admin_audience
        if not issuer or not audience:
            missing = variable("admin_audience" if issuer else "admin_issuer")
            message = f"{missing} is not set: with {name}, tokens are checked for their issuer and their audience"
            raise SettingError(message)
        if settings.public_url and issuer.startswith(f"{settings.public_url}/"):
            message = f"{variable('admin_issuer')} is the relay itself: what it signs for tools would administer it"
            raise SettingError(message)
        try:
            keys = KeySet.import_key_set(msgspec.json.decode(Path(settings.admin_jwks_file).read_bytes()))
        except OSError as error:
            message = f"{name}: the file cannot be read ({error.strerror})"
            raise SettingError(message) from None
        except (msgspec.DecodeError, JoseError, ValueError, TypeError, KeyError):
            message = f"{name}: the file is not a JSON Web Key Set"
            raise SettingError(message) from None
        if any(key.key_type == "oct" for key in keys.keys):
            message = f"{name}: a shared secret (kty oct) cannot check tokens; use public keys"
            raise SettingError(message)
        return cls(Trust(keys, issuer, audience, settings.admin_token_max_age_s, settings.admin_projects_claim))

    def check(self, token: str, project_id: str) -> None:
        """Accept a token for a project.

        Raises:
            KnownError: the token is malformed, forged, of another issuer, for another audience, too long-lived, not
                valid yet, expired, or for other projects.

        """
        if self._trust is None:
            raise KnownError("UNPARSABLE_ADMIN_ACCESS_TOKEN")
        try:
            claims = jwt.decode(token, self._trust.keys, algorithms=ALGORITHMS).claims
        except (JoseError, ValueError, TypeError, KeyError):
            raise KnownError("UNPARSABLE_ADMIN_ACCESS_TOKEN") from None
        if claims.get("iss") != self._trust.issuer or not _names(claims.get("aud"), self._trust.audience):
            raise KnownError("UNPARSABLE_ADMIN_ACCESS_TOKEN")
        issued_at, expires_at = _numeric_date(claims.get("iat")), _numeric_date(claims.get("exp"))
        not_before = _numeric_date(claims.get("nbf", 0))
        # Its issuer's clock set these, so this machine's clock is compared, not Redis'.
        now = time.time()
        if (
            issued_at is None
            or expires_at is None
            or not_before is None
            or max(issued_at, not_before) > now + CLOCK_LEEWAY
            or expires_at - issued_at > self._trust.max_age
        ):
            raise KnownError("UNPARSABLE_ADMIN_ACCESS_TOKEN")
        if expires_at <= now:
            raise KnownError("ADMIN_ACCESS_TOKEN_EXPIRED", expired_at_millis=int(expires_at * 1000))
        projects = claims.get(self._trust.projects_claim)
        if not isinstance(projects, list) or project_id not in projects:
            raise KnownError("ADMIN_ACCESS_TOKEN_IS_NOT_ADMIN")


def _names(claim: object, audience: str) -> bool:
    """Whether an `aud` claim names an audience: it is one text or a list of them (RFC 7519 §4.1.3)."""
    return claim == audience or (isinstance(claim, list) and audience in claim)


def _numeric_date(claim: object) -> float | None:
    """Return a NumericDate (RFC 7519 §2), in seconds since the epoch; None unless it is before the year 10 000."""
    if isinstance(claim, int | float) and not isinstance(claim, bool) and 0 <= claim < END_OF_ERA:
        return float(claim)
    return None
