"""The ways in which a stream is refused. They have no status and no text for clients.

Each dialect has one table from these to its words.
"""


class CursorNotOurs(Exception):
    """No relay with as many partitions gave the id to go on from."""


class EventsGone(Exception):
    """Events after the id to go on from have been trimmed."""


class TooManyStreams(Exception):
    """The project has as many streams open at this process as it may."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after
        """Seconds until streams whose clients have left are closed."""


StreamRefusal = CursorNotOurs | EventsGone | TooManyStreams
