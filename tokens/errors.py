"""What can go wrong with a family of tokens. No message here ever holds a token."""

from runtime.errors import LoginRelayError


class UnreadableFamilyError(LoginRelayError):
    """A family's record is broken, or of a version to come."""


class SuccessorSealingError(LoginRelayError):
    """A sealed successor does not open with this token: it was sealed to another one, or the bytes were changed."""
