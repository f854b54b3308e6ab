"""The ways in which a request is refused for itself, whatever it asks for. They have no status and no text for clients.

Each dialect has one table from these to its words.
"""


class TooLarge(Exception):
    """The body is larger than any that is read."""


class TooMuchAtOnce(Exception):
    """The bodies that are on their way take too much memory together; this one may come again."""


class TooSlow(Exception):
    """The body did not arrive in time."""


class Unreadable(Exception):
    """The body is not complete, not JSON in UTF-8, or not said to be."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        """A sentence that never repeats what was sent."""


class Misfit(Exception):
    """The request can be read and does not fit."""

    def __init__(self, reason: str, where: str = "") -> None:
        super().__init__(reason, where)
        self.reason = reason
        """Why it does not, without the value."""
        self.where = where
        """The field or the header, as ``at `$.mode` `` or `in header Prefer`; empty if the reason names it."""


RequestRefusal = TooLarge | TooMuchAtOnce | TooSlow | Unreadable | Misfit
