"""Errors that any room may raise. Their messages never hold a code, a token or a key."""


class LoginRelayError(Exception):
    """Base class of the errors that this project raises on purpose."""


class SettingError(LoginRelayError):
    """A setting is missing or wrong. The message is one line that names the variable."""


class RelayUnavailableError(LoginRelayError):
    """Redis cannot be reached, or refused a command. The caller may try again."""
