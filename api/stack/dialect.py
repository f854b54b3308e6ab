"""What every answer has in common: its head, with the request's id and the real status, and how errors are answered."""

from functools import cache

from litestar.status_codes import HTTP_200_OK, HTTP_400_BAD_REQUEST, HTTP_500_INTERNAL_SERVER_ERROR

from api.request.answer import Answer
from api.request.headers import Header, Headers, header
from api.request.note import Note
from api.request.security_headers import NOT_CACHED, ON_ALL
from api.stack.errors import refusal
from api.stack.headers import ACTUAL_STATUS, OVERRIDE_ERROR_STATUS, REQUEST_ID
from api.stack.origins import Origins


@cache  # there are a dozen statuses
def _of_status(status: int) -> tuple[Header, ...]:
    actual = str(status).encode()
    return (NOT_CACHED, *ON_ALL, *((name, actual) for name in ACTUAL_STATUS))


class StackDialect:
    """Completes the answers of this interface, and those of Litestar itself but for the paths of others."""

    def __init__(self, origins: Origins) -> None:
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
