"""Every way in which a login can fail."""


class LoginError(Exception):
    """A login that came to nothing. The text is fit for the person at the terminal and holds no secret."""


class LoginExpired(LoginError):  # noqa: N818 - named as the wire names the outcome
    """Nobody approved in time."""


class LoginUsed(LoginError):  # noqa: N818 - named as the wire names the outcome
    """The token went to another poller, or in an answer lost for longer than the relay repeats it."""


class LoginRefused(LoginError):  # noqa: N818 - an outcome like the two above: the server's last word, not a fault
    """The server's answer is final: a wrong project or key, a code it does not know, a login somebody denied.

    Attributes:
        status: HTTP status code.
        code: the server's name for the reason, such as `INVALID_POLLING_CODE`; None where it gave none.
        message: the server's text, one line, without control characters.

    """

    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class ServerUnreachable(LoginError):  # noqa: N818 - an outcome like the three above
    """No usable answer came for as long as one could have helped."""
