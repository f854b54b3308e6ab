"""What OAuth clients are told when something is wrong: one table, in the words of the specifications.

Always `{"error", "error_description"}` (RFC 6749 §5.2). A description never repeats a value of the request.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple, assert_never, get_args

import msgspec
import structlog
from litestar.exceptions import HTTPException
from msgspec import Meta

from api.logins.refusals import (
    AccessTokenRequired,
    BackendRequired,
    BindingRequired,
    Busy,
    KeyReused,
    LoginRefusal,
    NotDoneInTime,
    NotPending,
    PolledTooSoon,
    RefreshTokenRequired,
    StoreFull,
    SubjectRequired,
    TooManyLogins,
    TooManyWrongCodes,
    WrongLoginCode,
    WrongPollingCode,
    WrongRefreshToken,
)
from api.request.answer import Answer
from api.request.refusals import Misfit, RequestRefusal, TooLarge, TooMuchAtOnce, TooSlow, Unreadable
from api.tokens.refusals import DeadRefreshToken
from runtime.redis.connections import REDIS_TROUBLE

Word = Literal[
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "invalid_scope",
    "unauthorized_client",
    "unsupported_grant_type",
    "authorization_pending",
    "slow_down",
    "access_denied",
    "expired_token",
    "temporarily_unavailable",
    "server_error",
]


class Row(NamedTuple):
    """A row of the table of errors."""

    status: int
    description: str


ERRORS: Mapping[Word, Row] = {
    # RFC 6749 §5.2
    "invalid_request": Row(400, "The request is not valid."),
    "invalid_client": Row(401, "There is no such client, or its secret is wrong."),
    "invalid_grant": Row(400, "The code or token is not valid: unknown, used, revoked, expired, or not this client's."),
    "invalid_scope": Row(400, "The scope is more than what was granted."),
    "unauthorized_client": Row(400, "This project does not let OAuth clients log in."),
    "unsupported_grant_type": Row(400, "The relay does not know this grant type."),
    # RFC 8628 §3.5
    "authorization_pending": Row(400, "Nobody has approved this login yet."),
    "slow_down": Row(400, "This login was asked about too soon. Wait for the interval, and 5 seconds more."),
    "access_denied": Row(400, "This login was denied."),
    "expired_token": Row(400, "This login is over: its time ran out, or its tool gave it up."),
    # RFC 6749 §4.1.2.1, which has them for another endpoint; there are no better words.
    "temporarily_unavailable": Row(503, "The relay cannot do this just now. Try again."),
    "server_error": Row(500, "The relay failed to answer. This is a defect of the relay."),
}

TOO_LARGE = "The body is larger than 64 KiB."
TOO_SLOW = "The request was too slow to arrive."
TOO_MANY_WRONG_CODES = "Too many wrong codes. Try again later."
TOO_MANY_LOGINS = "Too many logins were started. Try again later."
STORE_FULL = "The relay has no room for another login just now. Try again later."
OFF = "OAuth is off: the relay has no LOGIN_RELAY_PUBLIC_URL or no LOGIN_RELAY_KEYS_FILE."
NOTHING_HERE = "There is nothing at this address."
OTHER_METHOD = "This address does not take this method."

STORE_FULL_FOR = 10  # seconds, as in the Stack dialect

_log = structlog.get_logger("api")
_NOT_CACHED = ((b"pragma", b"no-cache"),)  # RFC 6749 §5.1; every answer has `cache-control: no-store` too


class OAuthError(Exception):
    """An answer from the table of errors."""

    def __init__(
        self,
        word: Word,
        description: str | None = None,
        *,
        status: int | None = None,
        retry_after: int | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(word)
        self.word = word
        row = ERRORS[word]
        self.description = description or row.description
        self.status = status or row.status
        self.headers = headers
        if retry_after is not None:
            self.headers += ((b"retry-after", b"%d" % retry_after),)


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of an error (RFC 6749 §5.2)."""

    error: Annotated[Word, Meta(description="In the words of RFC 6749 and RFC 8628.")]
    error_description: Annotated[str, Meta(description="For people; it never repeats what was sent.")]


def answer(body: bytes, headers: tuple[tuple[bytes, bytes], ...] = (), status: int = 200) -> Answer:
    """Return an answer that is not cached."""
    return Answer(body, status, (*_NOT_CACHED, *headers))


def of_error(error: Exception) -> Answer:
    """Return the answer to a request that is refused, or that failed."""
    refused = _refused(error)
    body = msgspec.json.encode(ErrorBody(refused.word, refused.description))
    return answer(body, refused.headers, refused.status)


def _refused(error: Exception) -> OAuthError:
    if isinstance(error, OAuthError):
        return error
    if isinstance(error, get_args(RequestRefusal)):
        return of_request(error)
    if isinstance(error, get_args(LoginRefusal)):
        return of_login(error)
    if isinstance(error, DeadRefreshToken | WrongRefreshToken):
        return OAuthError("invalid_grant")  # to a client they are the same
    if isinstance(error, REDIS_TROUBLE):
        _log.warning("redis unavailable", error=type(error).__name__)
        return OAuthError("temporarily_unavailable", retry_after=1)
    _log.error("request failed", exc_info=error)
    return OAuthError("server_error")


def of_http(error: HTTPException) -> Answer:
    """Return the answer to what Litestar refuses before an endpoint runs: unknown path, wrong method."""
    text = {404: NOTHING_HERE, 405: OTHER_METHOD}.get(error.status_code, "The request cannot be served.")
    allow = tuple(
        (b"allow", value.encode()) for name, value in (error.headers or {}).items() if name.lower() == "allow"
    )
    return of_error(OAuthError("invalid_request", text, status=error.status_code, headers=allow))


def of_request(refusal: RequestRefusal) -> OAuthError:
    """Return the answer to a request that is refused for itself."""
    match refusal:
        case TooLarge():
            return OAuthError("invalid_request", TOO_LARGE, status=413)
        case TooMuchAtOnce():
            return OAuthError("temporarily_unavailable", retry_after=1)
        case TooSlow():
            return OAuthError("invalid_request", TOO_SLOW, status=408)
        case Unreadable(reason=reason):
            return OAuthError("invalid_request", reason)
        case Misfit(reason=reason, where=where):
            return OAuthError(
                "invalid_request", f"The request does not fit: {reason}" + (f" - {where}" if where else "")
            )
        case _:
            assert_never(refusal)


def of_login(refusal: LoginRefusal) -> OAuthError:  # noqa: PLR0911 - a table, a row each
    """Return the answer to a request that is refused by the login that it is about.

    Raises:
        TypeError: no request of this interface can be refused so: it completes nothing.

    """
    match refusal:
        case WrongPollingCode():
            return OAuthError("invalid_grant")
        case TooManyWrongCodes(retry_after=seconds):
            # Not `slow_down`: with it a client would go on for ever.
            return OAuthError("invalid_grant", TOO_MANY_WRONG_CODES, status=429, retry_after=seconds)
        case PolledTooSoon(retry_after=seconds):
            return OAuthError("slow_down", retry_after=seconds)
        case BindingRequired():
            return OAuthError("invalid_request", "The project requires code_challenge with S256 (RFC 7636).")
        case KeyReused():
            return OAuthError("invalid_request", "This Idempotency-Key came with another request before.")
        case TooManyLogins(retry_after=seconds):
            return OAuthError("temporarily_unavailable", TOO_MANY_LOGINS, status=429, retry_after=seconds)
        case StoreFull():
            return OAuthError("temporarily_unavailable", STORE_FULL, retry_after=STORE_FULL_FOR)
        case Busy() | NotDoneInTime():
            return OAuthError("temporarily_unavailable", retry_after=1)
        case (
            WrongLoginCode()
            | NotPending()
            | SubjectRequired()
            | AccessTokenRequired()
            | RefreshTokenRequired()
            | BackendRequired()
        ):
            raise TypeError(f"{type(refusal).__name__} is about a completion")
        case _:
            assert_never(refusal)
