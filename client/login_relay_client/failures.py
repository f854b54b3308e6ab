"""Every way in which a login can fail."""


class LoginError(Exception):
    """A login that failed. Its text can be shown to the person at the terminal and contains no secret."""


class LoginExpired(LoginError):  # noqa: N818 - named as the wire names the outcome
    """Nobody approved the login in time."""


class LoginUsed(LoginError):  # noqa: N818 - named as the wire names the outcome
    """The token went to another poller, or its response was lost for longer than the relay repeats it."""


class LoginDenied(LoginError):  # noqa: N818 - named as the wire names the outcome
    """Somebody denied the login. Do not retry: the person would be asked again."""


class LoginRefused(LoginError):  # noqa: N818 - an outcome like the three above, not a fault of the client
    """The server's response is final, for example a wrong project or key, or an unknown polling code.

    Attributes:
        status: HTTP status code.
        code: the server's name for the reason, such as `INVALID_POLLING_CODE`; None if it gave no name.
        message: the server's text, and what to do if the client knows it: one line, no control characters.

    """

    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class ServerUnreachable(LoginError):  # noqa: N818 - an outcome like the four above
    """The server gave no usable response until it was too late for one."""
