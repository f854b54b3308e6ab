"""Sealing of refresh tokens to the poller: HPKE (RFC 9180), base mode, X25519 / HKDF-SHA256 / AES-128-GCM.

The key pair follows from the polling code, which only the tool holds. Redis keeps the public half, so nothing in a
stolen Redis, its files or its replicas opens a token, and there is no key to manage.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import crypto_scalarmult_base

from statemachine.errors import SealingError

PUBLIC_KEY_LENGTH = 32  # bytes, RFC 7748 §5

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)


def _private_key(polling_code: str) -> bytes:
    # No salt: the polling code's secret part is 192 uniformly random bits (RFC 5869 §3.1).
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"login-relay: sealing key").derive(
        polling_code.encode()
    )


def _info(project_id: str, session_id: str) -> bytes:
    return f"login-relay: refresh token:{project_id}:{session_id}".encode()


def public_key(polling_code: str) -> bytes:
    """Return the 32 bytes to which tokens for the holder of `polling_code` are sealed."""
    # By libsodium, in half the time of OpenSSL: the same key, byte for byte (RFC 7748 §6.1).
    return crypto_scalarmult_base(_private_key(polling_code))


def seal(refresh_token: str, recipient: bytes, project_id: str, session_id: str) -> bytes:
    """Seal a refresh token to a public key of `public_key`, bound to its project and session."""
    key = X25519PublicKey.from_public_bytes(recipient)
    return _SUITE.encrypt(refresh_token.encode(), key, _info(project_id, session_id))


def unseal(sealed: bytes, polling_code: str, project_id: str, session_id: str) -> str:
    """Open what `seal` made.

    Raises:
        SealingError: it was sealed to another polling code, project or session, or was changed.

    """
    key = X25519PrivateKey.from_private_bytes(_private_key(polling_code))
    try:
        return _SUITE.decrypt(sealed, key, _info(project_id, session_id)).decode()
    except (InvalidTag, ValueError):
        raise SealingError from None
