"""What every answer has in common: its head, with the request's id and the real status, and how errors are answered."""

from functools import cache
from typing import cast

from litestar.status_codes import HTTP_200_OK, HTTP_400_BAD_REQUEST, HTTP_500_INTERNAL_SERVER_ERROR
from litestar.types import HTTPScope, Message, Scope

from api.request.endpoint import Answer
from api.request.headers import Header, Headers, header
from api.request.note import Note, Noting
from api.stack.errors import refusal
from api.stack.headers import ACTUAL_STATUS, OVERRIDE_ERROR_STATUS, REQUEST_ID
from api.stack.origins import Origins

# Nothing may be cached, nothing is a page (OWASP's list for APIs), and nothing names the server: an empty `server`
# header stops granian from adding its own.
_ON_ALL = (
    (b"cache-control", b"no-store, max-age=0"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"server", b""),
)


@cache  # there are a dozen statuses
def _of_status(status: int) -> tuple[Header, ...]:
    actual = str(status).encode()
    return (*_ON_ALL, *((name, actual) for name in ACTUAL_STATUS))


class StackDialect:
    """Completes the answers of this interface, and those of Litestar itself."""

    def __init__(self, noting: Noting, origins: Origins) -> None:
        self._noting = noting
        self._origins = origins

    def refusal(self, error: Exception, path: str) -> Answer:
        """Return the answer to a request that came to an error."""
        return refusal(error, path)

    async def head(self, note: Note, headers: Headers, status: int, own: list[Header]) -> tuple[int, list[Header]]:
        """Return the status that is sent, and all headers, for an answer with a status and headers of its own.

        The JavaScript client asks for 4xx answers as 200, with the real status in a header (`override-error-status`).
        """
        request_id = note.request_id.encode()
        own += _of_status(status)
        own += [(name, request_id) for name in REQUEST_ID]
        if note.is_cut:
            # The server closes the connection in this case. The client must know it before it sends its next request.
            own.append((b"connection", b"close"))
        if (origin := headers.get(b"origin")) is not None:
            own += await self._origins.readable_by(origin, headers)
        if HTTP_400_BAD_REQUEST <= status < HTTP_500_INTERNAL_SERVER_ERROR:
            status = HTTP_200_OK if header(headers, OVERRIDE_ERROR_STATUS) == "true" else status
        return status, own

    async def finish(self, message: Message, scope: Scope) -> None:
        """Note the end of a request that no `Route` answered, and complete its head (a `before_send` hook)."""
        if message["type"] != "http.response.start":
            return
        headers, status = dict(scope["headers"]), message["status"]
        note = self._noting.unanswered(cast("HTTPScope", scope), headers)  # only HTTP is served
        if note is None:
            return
        self._noting.end(note, status)
        message["status"], message["headers"] = await self.head(note, headers, status, [*message["headers"]])
