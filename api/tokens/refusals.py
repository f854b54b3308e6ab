"""The ways in which something is refused to a refresh token. They have no status and no text for clients.

`WrongRefreshToken`, `TooManyWrongCodes`, `Busy` and `NotDoneInTime` of `api.logins.refusals` come beside it. To a
client, a wrong token and a dead one are the same: `invalid_grant` (RFC 6749 §5.2).
"""


class NoAnonymousToken(Exception):
    """It is not a refresh token that opens doors in the project."""


class NotAnonymous(Exception):
    """The refresh token is of somebody."""


class NothingToClaim(Exception):
    """No anonymous session is kept for the login, or no longer."""


class DeadRefreshToken(Exception):
    """It opens nothing (any more): unknown, revoked, too old, replaced, another project's or another client's."""
