"""What can go wrong anywhere. No message here ever holds a code, a token or a key."""


class LoginRelayError(Exception):
    """Base of every error that this project raises on purpose."""


class SettingError(LoginRelayError):
    """A setting is missing or wrong; the message is one line that names the variable."""


class RelayUnavailableError(LoginRelayError):
    """Redis cannot be reached or refused to work just now; the caller may try again."""
