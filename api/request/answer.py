"""The answer to a request.

In a module of its own, without metrics: the tables of errors are imported before the folder of the metrics is made
(`api.server.processes_metrics`).
"""

from typing import NamedTuple

from api.request.headers import Header


class Answer(NamedTuple):
    """An answer. It may be sent any number of times."""

    body: bytes
    status: int = 200
    headers: tuple[Header, ...] = ()
    media_type: bytes = b"application/json"

    def own_headers(self) -> list[Header]:
        """Return the headers that this answer has for itself."""
        return [(b"content-type", self.media_type), (b"content-length", b"%d" % len(self.body)), *self.headers]
