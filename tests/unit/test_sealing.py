import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from statemachine.errors import SealingError
from statemachine.sealing import PUBLIC_KEY_LENGTH, public_key, seal, unseal

CODE, PROJECT, SESSION = "lrp_code", "project", "session"
TOKEN = "rt-top-secret"


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=80).filter(str.isascii))
def test_holder_of_the_polling_code_opens_what_was_sealed_to_it(token: str, code: str) -> None:
    """The code that a token was sealed to opens it, whatever the token is."""
    sealed = seal(token, public_key(code), PROJECT, SESSION)
    assert unseal(sealed, code, PROJECT, SESSION) == token


def test_key_pair_follows_from_the_code() -> None:
    """The same code always gives the same key, so that no key is stored; another code gives another key."""
    assert public_key(CODE) == public_key(CODE) != public_key(CODE + "x")
    assert len(public_key(CODE)) == PUBLIC_KEY_LENGTH
    # Golden: tokens sealed before an upgrade must open after it.
    assert public_key(CODE).hex() == "fcd9368f710936e7ae12a2494a21bcd20e99e464a0e1b82a7b427a5651567a16"


@given(st.text(min_size=1, max_size=80).filter(str.isascii))
def test_key_is_that_of_the_first_version(code: str) -> None:
    """The first version computed keys by OpenSSL. Libsodium gives the same, so the versions may run side by side."""
    private = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"login-relay: sealing key").derive(code.encode())
    assert public_key(code) == X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def test_sealed_token_of_an_earlier_version_opens() -> None:
    """The cipher suite and the bound data never change: the first version sealed this token."""
    sealed = bytes.fromhex(
        "2e6ea17427e381b9b45e14184c3cd74c1ac1561e99fde8936f9b904852f99a6cc270832f73a2333c"
        "97ece7483c62c92992fec62da6a99f70b5e5f4ae75"
    )
    assert unseal(sealed, CODE, PROJECT, SESSION) == TOKEN


def test_sealing_twice_gives_nothing_to_compare() -> None:
    """Two sealings of one token share no bytes but those of chance."""
    first, second = (seal(TOKEN, public_key(CODE), PROJECT, SESSION) for _ in range(2))
    assert first != second
    assert TOKEN.encode() not in first


@pytest.mark.parametrize(
    ("code", "project", "session"),
    [
        ("lrp_other", PROJECT, SESSION),
        (CODE, "other", SESSION),
        (CODE, PROJECT, "other"),
        (CODE, "projec", "t:session"),
    ],
)
def test_sealed_token_opens_nowhere_else(code: str, project: str, session: str) -> None:
    """Another code, project or session does not open it, and the error reveals nothing."""
    sealed = seal(TOKEN, public_key(CODE), PROJECT, SESSION)
    with pytest.raises(SealingError) as refused:
        unseal(sealed, code, project, session)
    assert str(refused.value) == ""


def test_changed_sealed_token_does_not_open() -> None:
    """A flipped bit anywhere, or missing bytes, and it does not open."""
    sealed = seal(TOKEN, public_key(CODE), PROJECT, SESSION)
    flipped = [sealed[:i] + bytes([sealed[i] ^ 1]) + sealed[i + 1 :] for i in range(len(sealed))]
    for changed in (*flipped, sealed[:-1], sealed[:40], sealed[:3], b"", sealed + b"\0"):
        with pytest.raises(SealingError):
            unseal(changed, CODE, PROJECT, SESSION)
