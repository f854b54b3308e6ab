"""The keys that sign a project's access tokens: ES256, derived from the master secrets, and kept nowhere."""

from collections.abc import Callable
from typing import Any, NamedTuple

from cachetools import LRUCache
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from joserfc.jwk import ECKey, KeySet

from runtime.master_secret import MasterSecret, Purpose

ALGORITHM = "ES256"
JWKS_MAX_AGE = 3_600
"""Seconds for which a key set may be cached. A new master secret may be promoted when all caches have its keys."""

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # n of P-256 (SP 800-186 §3.2.1.3)
_SEED_BYTES = 48  # 128 bits more than n: the remainder's bias is under 2^-128 (FIPS 186-5 A.2.1 asks for 64)
_MOST_CACHED = 4_096  # projects; the keys of one take about 4 KiB

Secrets = Callable[[], tuple[MasterSecret, ...]]


class Keyring(NamedTuple):
    """The keys of one project. The first signs, all verify."""

    signer: ECKey
    kid: str
    """The thumbprint of the first one's public half (RFC 7638)."""
    keys: KeySet
    kids: frozenset[str]

    def public(self) -> list[dict[str, Any]]:
        """Return the public halves, as the entries of a JSON Web Key Set, that of the signing key first."""
        return [dict(key.as_dict(private=False)) for key in self.keys]


class SigningKeys:
    """Derives the keys of projects and caches them until the master secrets change."""

    def __init__(self, secrets: Secrets) -> None:
        """`secrets` returns the master secrets of now, of which there is at least one."""
        self._secrets = secrets
        self._derived_from: tuple[MasterSecret, ...] = ()
        self._cached: LRUCache[str, Keyring] = LRUCache(_MOST_CACHED)

    def of_project(self, project_id: str) -> Keyring:
        """Return the keys of a project's users."""
        return self._of(project_id)

    def of_anonymous(self, project_id: str) -> Keyring:
        """Return the keys of a project's anonymous users: others, so that no verifier takes the one for the other."""
        return self._of(f"{project_id}:anon")

    def _of(self, context: str) -> Keyring:
        secrets = self._secrets()
        if secrets is not self._derived_from:
            self._derived_from = secrets
            self._cached.clear()
        found = self._cached.get(context)
        if found is None:
            found = self._cached[context] = _keyring([_derived(secret, context) for secret in secrets])
        return found


def _derived(secret: MasterSecret, context: str) -> ECKey:
    """Return the key pair of a master secret (FIPS 186-5 A.2.1, with HKDF's output in place of random bits)."""
    number = int.from_bytes(secret.derive(Purpose.SIGNING, context, _SEED_BYTES)) % (_ORDER - 1) + 1
    private = derive_private_key(number, SECP256R1())
    thumbprint = ECKey.import_key(private).thumbprint()
    return ECKey.import_key(private, {"use": "sig", "alg": ALGORITHM, "kid": thumbprint})


def _keyring(keys: list[ECKey]) -> Keyring:
    kids = [str(key.kid) for key in keys]
    return Keyring(keys[0], kids[0], KeySet(list(keys)), frozenset(kids))
