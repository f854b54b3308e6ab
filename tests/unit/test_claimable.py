"""Sealing of an anonymous session to a login code: what opens it, and what does not."""

from runtime.master_secret import new_master_secret
from tokens.claimable import seal, unseal

TOKEN, PROJECT, SESSION, CODE = "lrt_example", "project", "00" * 13, "BCDFGHJKLMNP"


def test_it_opens_with_the_login_code_and_the_master_secret_alone() -> None:
    """A stolen Redis has neither; another code, session, project or secret opens nothing."""
    secret, other = new_master_secret(), new_master_secret()
    sealed = seal(TOKEN, secret, PROJECT, SESSION, CODE)
    assert TOKEN.encode() not in sealed
    assert unseal(sealed, [secret], PROJECT, SESSION, CODE) == TOKEN
    assert unseal(sealed, [other], PROJECT, SESSION, CODE) is None
    assert unseal(sealed, [secret], "another", SESSION, CODE) is None
    assert unseal(sealed, [secret], PROJECT, "01" * 13, CODE) is None
    assert unseal(sealed, [secret], PROJECT, SESSION, CODE[::-1]) is None
    assert unseal(sealed[:-1], [secret], PROJECT, SESSION, CODE) is None
    assert unseal(b"", [secret], PROJECT, SESSION, CODE) is None


def test_it_opens_after_the_master_secrets_have_changed() -> None:
    """A secret that no longer seals still opens, as long as it is in the file."""
    old, new = new_master_secret(), new_master_secret()
    sealed = seal(TOKEN, old, PROJECT, SESSION, CODE)
    assert unseal(sealed, [new, old], PROJECT, SESSION, CODE) == TOKEN


def test_equal_tokens_are_sealed_differently() -> None:
    """Two copies tell nobody that they are of one session."""
    secret = new_master_secret()
    assert seal(TOKEN, secret, PROJECT, SESSION, CODE) != seal(TOKEN, secret, PROJECT, SESSION, CODE)
