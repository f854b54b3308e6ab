"""What can go wrong with a session. No message here ever holds a code or a token."""

from runtime.errors import LoginRelayError


class UnreadableSessionError(LoginRelayError):
    """A session's record is broken, or of a version to come."""


class SealingError(LoginRelayError):
    """A sealed token does not open with this polling code: the code is another session's, or the bytes were changed."""
