"""Admin access tokens: JWTs checked against public keys in a file, for the projects that a claim lists."""

import time
from pathlib import Path

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from api.stack.errors import KnownError
from runtime.errors import SettingError
from runtime.settings import Settings, variable

ALGORITHMS = ["EdDSA", "Ed25519", "ES256", "ES384", "RS256", "PS256"]
"""Signatures with a public key only: with a shared secret, whoever verifies could also sign."""

END_OF_ERA = 253_402_300_800  # seconds; the year 10 000. Infinities and what is no number (NaN) stay outside


class AdminTokens:
    """Checks admin access tokens; without a key file it refuses every one."""

    def __init__(self, keys: KeySet | None, projects_claim: str) -> None:
        self._keys = keys
        self._projects_claim = projects_claim

    @classmethod
    def from_settings(cls, settings: Settings) -> "AdminTokens":
        """Read the key file that the settings name.

        Raises:
            SettingError: the file cannot be read or holds no JWKS with public keys.

        """
        if settings.admin_jwks_file is None:
            return cls(None, settings.admin_projects_claim)
        name = variable("admin_jwks_file")
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
        return cls(keys, settings.admin_projects_claim)

    def check(self, token: str, project_id: str) -> None:
        """Accept a token for a project.

        Raises:
            KnownError: the token is malformed, forged, expired or for other projects.

        """
        if self._keys is None:
            raise KnownError("UNPARSABLE_ADMIN_ACCESS_TOKEN")
        try:
            claims = jwt.decode(token, self._keys, algorithms=ALGORITHMS).claims
        except (JoseError, ValueError, TypeError, KeyError):
            raise KnownError("UNPARSABLE_ADMIN_ACCESS_TOKEN") from None
        expires_at, not_before = _numeric_date(claims.get("exp")), _numeric_date(claims.get("nbf", 0))
        # Its issuer's clock set these, so this machine's clock is compared, not Redis'.
        now = time.time()
        if expires_at is None or not_before is None or not_before > now:
            raise KnownError("UNPARSABLE_ADMIN_ACCESS_TOKEN")
        if expires_at <= now:
            raise KnownError("ADMIN_ACCESS_TOKEN_EXPIRED", expired_at_millis=int(expires_at * 1000))
        projects = claims.get(self._projects_claim)
        if not isinstance(projects, list) or project_id not in projects:
            raise KnownError("ADMIN_ACCESS_TOKEN_IS_NOT_ADMIN")


def _numeric_date(claim: object) -> float | None:
    """Return a NumericDate (RFC 7519 §2) in seconds since the epoch; None if it is none of this era."""
    if isinstance(claim, int | float) and not isinstance(claim, bool) and 0 <= claim < END_OF_ERA:
        return float(claim)
    return None
