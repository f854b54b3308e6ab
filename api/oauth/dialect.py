"""What every answer of this interface has in common: its head, with the request's id, and how errors are answered."""

from litestar.exceptions import HTTPException

from api.oauth.errors import of_error, of_http
from api.request.answer import Answer
from api.request.headers import Header, Headers
from api.request.note import Note
from api.request.security_headers import NOT_CACHED, ON_ALL


def is_of_oauth(path: str) -> bool:
    """Return whether a path is of this interface, whether there is something or not."""
    return path.startswith("/oauth/") or "/.well-known/" in path


class OAuthDialect:
    """Completes the answers of this interface."""

    def refusal(self, error: Exception, path: str) -> Answer:  # noqa: ARG002 - of the protocol
        """Return the answer to a request that came to an error."""
        return of_http(error) if isinstance(error, HTTPException) else of_error(error)

    async def head(self, note: Note, headers: Headers, status: int, own: list[Header]) -> tuple[int, list[Header]]:  # noqa: ARG002 - of the protocol
        """Return the status that is sent, and all headers, for an answer with a status and headers of its own."""
        if not any(name == b"cache-control" for name, _ in own):
            own.append(NOT_CACHED)
        own += ON_ALL
        own.append((b"x-request-id", note.request_id.encode()))
        if note.is_cut:
            # The server closes the connection in this case. The client must know it before it sends its next request.
            own.append((b"connection", b"close"))
        return status, own
