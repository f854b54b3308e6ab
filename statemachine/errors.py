"""What can go wrong below HTTP. No message here ever holds a code, a token or a key."""

from typing import Literal

InitiationBudget = Literal["address", "project", "live_sessions"]


class LoginRelayError(Exception):
    """Base of every error that this project raises on purpose."""


class SettingError(LoginRelayError):
    """A setting is missing or wrong; the message is one line that names the variable."""


class RelayUnavailableError(LoginRelayError):
    """Redis cannot be reached or refused to work just now; the caller may try again."""


class ProjectNameTakenError(LoginRelayError):
    """Another project has this name; names are unique."""


class UnknownProjectError(LoginRelayError):
    """No project has this id or name."""


class UnreadableSessionError(LoginRelayError):
    """A session's record is broken, or of a version to come."""


class InitiationRefusedError(LoginRelayError):
    """No session was made: a budget is used up."""

    def __init__(self, budget: InitiationBudget, wait_ms: int, now: int) -> None:
        super().__init__(budget)
        self.budget = budget
        self.wait_ms = wait_ms
        """Until it may be otherwise."""
        self.now = now
        """Redis time in milliseconds."""


class SealingError(LoginRelayError):
    """A sealed token does not open with this polling code: the code is another session's, or the bytes were changed."""
