"""The ways in which something is refused to a login. They have no status and no text for clients.

Each dialect has one table from these to its words.
"""


class WrongLoginCode(Exception):
    """It names no session of the project."""


class WrongPollingCode(Exception):
    """It names no session of the project, or its poller cannot prove that it is the tool that asked for it."""

    def __init__(self, *, unbound: str | None = None) -> None:
        super().__init__()
        self.unbound = unbound
        """The session's id, if the code was right and only the proof was not."""


class WrongRefreshToken(Exception):
    """It was never a token of the family that it names: somebody forged it."""


class NotPending(Exception):
    """The session was completed before, or has ended."""


class BindingRequired(Exception):
    """The project wants every session bound to its tool, and this one is not."""


class SubjectRequired(Exception):
    """The relay mints access tokens for an OAuth client, and they need to say who logged in."""


class AccessTokenRequired(Exception):
    """An OAuth client began the session: a refresh token alone is of no use to it."""


class RefreshTokenRequired(Exception):
    """The session was not begun by an OAuth client: its tool takes a refresh token, and the response has none."""


class BackendRequired(Exception):
    """Only a backend may say who logged in to an OAuth client: a key that ships inside tools may not."""


class Busy(Exception):
    """The backlog is full; nothing was recorded."""


class StoreFull(Exception):
    """Redis is at its `maxmemory`, so that no session can be added; nothing was recorded."""


class NotDoneInTime(Exception):
    """The command is recorded, but no worker decided it in time."""


class KeyReused(Exception):
    """The Idempotency-Key came with another request before; nothing is done."""


class _Later(Exception):
    def __init__(self, wait_ms: int) -> None:
        super().__init__(wait_ms)
        self.retry_after = max(1, -(-wait_ms // 1000))
        """Whole seconds, rounded up: a request that comes sooner is refused again."""


class TooManyWrongCodes(_Later):
    """A budget of wrong codes is used up."""


class TooManyLogins(_Later):
    """A budget of sessions is used up."""


class PolledTooSoon(_Later):
    """A pending session was polled before its interval was over."""

    def __init__(self, session_id: str, now: int, wait_ms: int) -> None:
        super().__init__(wait_ms)
        self.session_id = session_id
        self.now = now
        """Redis time in milliseconds."""


LoginRefusal = (
    WrongLoginCode
    | WrongPollingCode
    | NotPending
    | BindingRequired
    | SubjectRequired
    | AccessTokenRequired
    | RefreshTokenRequired
    | BackendRequired
    | Busy
    | StoreFull
    | NotDoneInTime
    | KeyReused
    | TooManyWrongCodes
    | TooManyLogins
    | PolledTooSoon
)
