"""Sealing of an anonymous subject's refresh token, which a backend may claim with the login code of its tool's session.

AES-128-GCM with a key derived (HKDF-SHA256) from a master secret and the login code. A stolen Redis alone opens
nothing: it has no master secret. The master secrets alone open nothing: who has both still has to find the login code.
"""

import os
from collections.abc import Iterable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtime.master_secret import MasterSecret, Purpose
from tokens.sealing import NONCE_BYTES


def _cipher(secret: MasterSecret, project_id: str, session_id: str, login_code: str) -> AESGCM:
    return AESGCM(secret.derive(Purpose.CLAIMING, f"{project_id}:{session_id}:{login_code}", 16))


def seal(refresh_token: str, secret: MasterSecret, project_id: str, session_id: str, login_code: str) -> bytes:
    """Seal a refresh token to a master secret and a normalised login code, bound to the session."""
    nonce = os.urandom(NONCE_BYTES)
    cipher = _cipher(secret, project_id, session_id, login_code)
    return nonce + cipher.encrypt(nonce, refresh_token.encode(), session_id.encode())


def unseal(
    sealed: bytes, secrets: Iterable[MasterSecret], project_id: str, session_id: str, login_code: str
) -> str | None:
    """Open what `seal` made with one of the master secrets; None if it was another one, or another login code."""
    nonce, text = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    for secret in secrets:
        try:
            return (
                _cipher(secret, project_id, session_id, login_code).decrypt(nonce, text, session_id.encode()).decode()
            )
        except (InvalidTag, ValueError):
            continue
    return None
