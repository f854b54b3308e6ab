"""Sealing of a token's successor to the token itself: AES-128-GCM, with a key by HKDF-SHA256 from the presented token.

Only a tool that presents the token can open its successor, so nothing in a stolen Redis opens one.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from runtime.codes import RefreshToken
from tokens.errors import SuccessorSealingError

NONCE_BYTES = 12  # NIST SP 800-38D §8.2.2: random, 96 bits. One key seals as many as one token asks for successors


def _cipher(presented: RefreshToken) -> AESGCM:
    # No salt: the token's own secret is 192 uniformly random bits (RFC 5869 §3.1).
    hkdf = HKDF(algorithm=SHA256(), length=16, salt=None, info=b"login-relay: successor of a refresh token")
    return AESGCM(hkdf.derive(presented.text.encode()))


def seal(successor: RefreshToken, presented: RefreshToken) -> bytes:
    """Seal a successor to the token that asks for it, bound to their family."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + _cipher(presented).encrypt(nonce, successor.text.encode(), presented.family_id.encode())


def unseal(sealed: bytes, presented: RefreshToken) -> str:
    """Open what `seal` made and return the successor.

    Raises:
        SuccessorSealingError: it was sealed to another token, or was changed.

    """
    nonce, text = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        return _cipher(presented).decrypt(nonce, text, presented.family_id.encode()).decode()
    except (InvalidTag, ValueError):
        raise SuccessorSealingError from None
