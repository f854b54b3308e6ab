"""The access tokens of this interface, for what a family of refresh tokens opens."""

from tokens.access_tokens import AccessTokens, Grant
from tokens.family import Family


def minted(tokens: AccessTokens, family: Family, now: int) -> str:
    """Return an access token of a family. `now` is Redis time in milliseconds.

    The relay knows no users, so their sign-up is taken to be the beginning of their session.
    """
    grant = Grant(
        family.project_id,
        family.id,
        family.subject,
        family.client_id,
        family.scope,
        (family.project_id,),
        is_anonymous=family.anonymous,
    )
    return tokens.sign_for_stack(grant, now / 1000, family.opened_at / 1000)
