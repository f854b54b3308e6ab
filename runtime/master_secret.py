"""One master secret, and the keys that are derived from it (ADR 20). Files of them are in `runtime.master_secrets`."""

import secrets
import time
from dataclasses import dataclass, field
from enum import StrEnum

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SECRET_BYTES = 32  # RFC 5869 §3.1: uniformly random, and as long as the hash


class Purpose(StrEnum):
    """What a key is derived for. Keys of two purposes have nothing in common. A name may never be changed."""

    SIGNING = "signing"
    """The keys that sign the access tokens of a project."""
    CLAIMING = "claiming"
    """The keys that, together with a login code, seal the anonymous session of a tool that logs in."""
    FINGERPRINT = "fingerprint"
    """What API processes publish of a secret, so that `login-relay doctor` can compare them."""


@dataclass(frozen=True, slots=True)
class MasterSecret:
    """One secret. Its `repr` does not show it."""

    kid: str
    secret: bytes = field(repr=False)
    added_at: int | None
    """Seconds since the epoch; None in a file that was written by something else."""

    def derive(self, purpose: Purpose, context: str, length: int) -> bytes:
        """Return `length` bytes derived for a purpose and a context, such as the id of a project (RFC 5869)."""
        # No salt: the secret is uniformly random (RFC 5869 §3.1). No purpose contains a colon: no two infos are equal.
        info = f"login-relay: {purpose}:{context}".encode()
        return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(self.secret)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell the secret from others, and nothing about it."""
        return self.derive(Purpose.FINGERPRINT, "", 8).hex()


def new_master_secret() -> MasterSecret:
    """Return a new random secret, with the day and some random digits as its kid."""
    now = int(time.time())
    kid = f"{time.strftime('%Y-%m-%d', time.gmtime(now))}-{secrets.token_hex(3)}"
    return MasterSecret(kid, secrets.token_bytes(SECRET_BYTES), now)
