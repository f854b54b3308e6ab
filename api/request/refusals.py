"""The refusals of a request as such, at any endpoint. They have no status and no text for clients.

Each dialect has one table that gives them both.
"""


class TooLarge(Exception):
    """The body is larger than `MAX_BODY_BYTES`."""


class TooMuchAtOnce(Exception):
    """The incomplete bodies take too much memory together. The client may send this one again."""


class TooSlow(Exception):
    """The body did not arrive in time."""


class Unreadable(Exception):
    """The body is not complete, not JSON in UTF-8, or its Content-Type is another."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        """A sentence that never quotes the request."""


class Misfit(Exception):
    """The request can be read, but a value in it is missing or not valid."""

    def __init__(self, reason: str, where: str = "") -> None:
        super().__init__(reason, where)
        self.reason = reason
        """Why it is not valid, without the value."""
        self.where = where
        """The field or the header, as ``at `$.mode` `` or `in header Prefer`; empty if the reason names it."""


RequestRefusal = TooLarge | TooMuchAtOnce | TooSlow | Unreadable | Misfit
