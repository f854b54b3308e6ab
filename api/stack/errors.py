"""What clients are told when something is wrong: one table, and the handlers that render it.

Known errors are JSON and carry their code in a header too; other errors are plain text, because the clients of this
interface print the body to people. What goes to the log is a second text, never the request's content.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, assert_never, get_args

import msgspec
import structlog
from litestar.exceptions import HTTPException
from litestar.status_codes import (
    HTTP_500_INTERNAL_SERVER_ERROR,
)

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
from api.stack.headers import KNOWN_ERROR
from api.tokens.refusals import DeadRefreshToken, NoAnonymousToken, NotAnonymous, NothingToClaim
from runtime.redis.connections import REDIS_TROUBLE

Details = Mapping[str, str | int | list[str]]

_log = structlog.get_logger("api")
TEXT = b"text/plain; charset=utf-8"
STORE_FULL_FOR = 10  # seconds; sessions end, and are forgotten, all the time, but a full Redis has many clients waiting


class Known(NamedTuple):
    """A row of the table of known errors."""

    status: int
    message: str


KNOWN_ERRORS = {
    "ACCESS_TYPE_REQUIRED": Known(
        400,
        "Say who is asking: send x-stack-access-type (client, server or admin) with its key, or a key alone.",
    ),
    "INVALID_ACCESS_TYPE": Known(400, "x-stack-access-type must be client, server or admin."),
    "ACCESS_TYPE_WITHOUT_PROJECT_ID": Known(
        400, "Send the project's id in x-stack-project-id along with the access type."
    ),
    "CURRENT_PROJECT_NOT_FOUND": Known(400, "There is no project with the id in x-stack-project-id."),
    "INVALID_PUBLISHABLE_CLIENT_KEY": Known(401, "The publishable client key is not valid for this project."),
    "INVALID_SECRET_SERVER_KEY": Known(401, "The secret server key is not valid for this project."),
    "INVALID_SUPER_SECRET_ADMIN_KEY": Known(401, "The super secret admin key is not valid for this project."),
    "PUBLISHABLE_CLIENT_KEY_REQUIRED_FOR_PROJECT": Known(
        401, "Send the project's publishable client key in x-stack-publishable-client-key."
    ),
    "SERVER_AUTHENTICATION_REQUIRED": Known(401, "Send the project's secret server key in x-stack-secret-server-key."),
    "ADMIN_AUTHENTICATION_REQUIRED": Known(
        401,
        "Send the project's super secret admin key in x-stack-super-secret-admin-key, or an admin access token.",
    ),
    "UNPARSABLE_ADMIN_ACCESS_TOKEN": Known(401, "The admin access token is not a token that this relay can verify."),
    "ADMIN_ACCESS_TOKEN_EXPIRED": Known(401, "The admin access token has expired."),
    "ADMIN_ACCESS_TOKEN_IS_NOT_ADMIN": Known(401, "The admin access token is not for this project."),
    "INSUFFICIENT_ACCESS_TYPE": Known(401, "This access type may not do this."),
    "BODY_PARSING_ERROR": Known(400, "The request body cannot be read."),
    "SCHEMA_ERROR": Known(400, "The request body does not fit."),
    "INVALID_POLLING_CODE": Known(400, "The polling code is invalid or does not exist."),
    # What comes after a login.
    "UNPARSABLE_ACCESS_TOKEN": Known(401, "The access token is not a token of this project."),
    "ACCESS_TOKEN_EXPIRED": Known(401, "The access token has expired, or its session has ended. Refresh it."),
    "USER_AUTHENTICATION_REQUIRED": Known(401, "Send the user's access token in x-stack-access-token."),
    "REFRESH_TOKEN_NOT_FOUND_OR_EXPIRED": Known(
        401, "Refresh token not found for this project, or the session has expired/been revoked."
    ),
    "CANNOT_GET_OWN_USER_WITHOUT_USER": Known(
        400, "You have specified 'me' as a userId, but did not provide authentication for a user."
    ),
    "CANNOT_DELETE_CURRENT_SESSION": Known(400, "The session of the access token ends by signing out, not so."),
    "INVALID_OAUTH_CLIENT_ID_OR_SECRET": Known(
        400, "client_id must be the id of a project, and client_secret its publishable client key."
    ),
    "IDEMPOTENCY_KEY_REUSED": Known(422, "This Idempotency-Key came with another request before. Nothing was done."),
}

# The other errors, in plain text. The first two are what clients of this interface know.
INVALID_LOGIN_CODE = "Invalid login code or the code has expired"
NO_ANONYMOUS_SESSION = "No anonymous session associated with this code"
INVALID_ANONYMOUS_TOKEN = "Invalid anon refresh token"  # noqa: S105 - a text, not a token
NOT_ANONYMOUS = "The anon refresh token does not belong to an anonymous user"
ANONYMOUS_OFF = (
    "Anonymous sessions are off: the relay has no LOGIN_RELAY_PUBLIC_URL or no LOGIN_RELAY_KEYS_FILE. "
    "Send the request without anon_refresh_token."
)
TOKENS_OFF = "Sessions are off: the relay has no LOGIN_RELAY_PUBLIC_URL or no LOGIN_RELAY_KEYS_FILE."
NO_SUCH_SESSION = "There is no such session of this user."
OTHER_USER = "A user's access token is for the user's own sessions only."
TOO_LARGE = "The request body is larger than 64 KiB."
EVENTS_GONE = (
    "Events after Last-Event-ID are not kept any more. Connect without it, and find out by other means what was missed."
)
RECORDED = (
    "The request is recorded but not done yet: no worker answered in time. "
    "Send it again with the same Idempotency-Key to learn its outcome."
)
BUSY = "The relay is busy. Nothing was recorded; try again."
STORE_FULL = "The relay has no room for another login just now. Nothing was recorded; try again later."
KEY_REUSED = KNOWN_ERRORS["IDEMPOTENCY_KEY_REUSED"].message
TOO_MANY_WRONG_CODES = "Too many wrong codes. Try again later."
TOO_MANY_SESSIONS = "Too many logins were started. Try again later."
TOO_MANY_STREAMS = "The project has too many event streams open here. Close some, or try again later."
TOO_SOON = "This login was asked about too soon. Wait for the interval that the relay gave."
TOO_SLOW = "The request was too slow to arrive."
TOO_MUCH_AT_ONCE = "The relay is receiving too many large requests. Nothing was recorded; try again."
STORE_AWAY = "The relay cannot reach its store just now. Nothing is lost; try again."
DEFECT = "The relay failed to answer. This is a defect of the relay."


class KnownError(Exception):
    """An answer from the table of known errors."""

    def __init__(self, code: str, message: str | None = None, /, **details: str | int | list[str]) -> None:
        super().__init__(code)
        self.code = code
        self.status, default = KNOWN_ERRORS[code]
        self.message = message or default
        self.details = details


class PlainError(Exception):
    """An answer in plain text, for people."""

    def __init__(self, status: int, text: str, *, retry_after: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.retry_after = retry_after


class KnownErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of a known error."""

    code: str
    error: str
    details: dict[str, str | int | list[str]] | None = None


def of_request(refusal: RequestRefusal) -> KnownError | PlainError:
    """Return the answer to a request that is refused for itself."""
    match refusal:
        case TooLarge():
            return PlainError(413, TOO_LARGE)
        case TooMuchAtOnce():
            return PlainError(503, TOO_MUCH_AT_ONCE, retry_after=1)
        case TooSlow():
            return PlainError(408, TOO_SLOW)
        case Unreadable(reason=reason):
            return KnownError("BODY_PARSING_ERROR", reason)
        case Misfit(reason=reason, where=where):
            message = f"The request does not fit: {reason}" + (f" - {where}" if where else "")
            return KnownError("SCHEMA_ERROR", message, message=message)
        case _:
            assert_never(refusal)


def of_login(refusal: LoginRefusal) -> KnownError | PlainError:  # noqa: C901, PLR0911, PLR0912 - a table, a row each
    """Return the answer to a request that is refused by the login that it is about."""
    match refusal:
        case WrongPollingCode():
            return KnownError("INVALID_POLLING_CODE")
        case WrongLoginCode() | NotPending():
            return PlainError(400, INVALID_LOGIN_CODE)
        case BindingRequired():
            return of_request(Misfit("The project requires `code_challenge`", "at `$.code_challenge`"))
        case SubjectRequired():
            return of_request(Misfit("An OAuth client began this login: say who it is for", "at `$.subject`"))
        case AccessTokenRequired():
            reason = "An OAuth client began this login: bring `token_response`, or `subject` alone"
            return of_request(Misfit(reason, "at `$.refresh_token`"))
        case RefreshTokenRequired():
            return of_request(Misfit("Expected a `refresh_token` in it", "at `$.token_response`"))
        case BackendRequired():
            return KnownError(
                "INSUFFICIENT_ACCESS_TYPE",
                actual_access_type="client",
                allowed_access_types=["server", "admin"],
            )
        case KeyReused():
            return KnownError("IDEMPOTENCY_KEY_REUSED")
        case Busy():
            return PlainError(503, BUSY, retry_after=1)
        case StoreFull():
            return PlainError(503, STORE_FULL, retry_after=STORE_FULL_FOR)
        case NotDoneInTime():
            return PlainError(503, RECORDED, retry_after=1)
        case TooManyWrongCodes(retry_after=seconds):
            return PlainError(429, TOO_MANY_WRONG_CODES, retry_after=seconds)
        case TooManyLogins(retry_after=seconds):
            return PlainError(429, TOO_MANY_SESSIONS, retry_after=seconds)
        case PolledTooSoon(retry_after=seconds):
            return PlainError(429, TOO_SOON, retry_after=seconds)
        case _:
            assert_never(refusal)


def _request_refused(refusal: RequestRefusal, _: str) -> Answer:
    return _answer(of_request(refusal))


def _login_refused(refusal: LoginRefusal, _: str) -> Answer:
    return _answer(of_login(refusal))


def _answer(answer: KnownError | PlainError) -> Answer:
    return _known(answer) if isinstance(answer, KnownError) else _plain(answer)


def _known(error: KnownError, _: str = "") -> Answer:
    body = msgspec.json.encode(KnownErrorBody(error.code, error.message, dict(error.details) or None))
    code = error.code.encode()
    return Answer(body, error.status, tuple((name, code) for name in KNOWN_ERROR))


def _plain(error: PlainError, _: str = "") -> Answer:
    headers = ((b"retry-after", b"%d" % error.retry_after),) if error.retry_after is not None else ()
    return Answer(error.text.encode(), error.status, headers, TEXT)


def _litestar(error: HTTPException, path: str) -> Answer:
    """Answer for what Litestar refuses before an endpoint runs: unknown path, wrong method."""
    texts = {
        404: "There is nothing at this address.",
        405: "This address does not take this method.",
    }
    if error.status_code >= HTTP_500_INTERNAL_SERVER_ERROR:
        return _unexpected(error, path)
    text = texts.get(error.status_code, "The request cannot be served.")
    allow = [(b"allow", value.encode()) for name, value in (error.headers or {}).items() if name.lower() == "allow"]
    return Answer(text.encode(), error.status_code, tuple(allow), TEXT)


def _dead_token(_: Exception, __: str) -> Answer:
    """Answer a refresh token that opens nothing. To a client, a forged one is no other."""
    return _known(KnownError("REFRESH_TOKEN_NOT_FOUND_OR_EXPIRED"))


def _redis(error: Exception, path: str) -> Answer:
    _log.warning("redis unavailable", path=path, error=type(error).__name__)
    return _plain(PlainError(503, STORE_AWAY, retry_after=1))


def _unexpected(error: Exception, path: str) -> Answer:
    _log.error("request failed", path=path, exc_info=error)
    return _plain(PlainError(500, DEFECT))


REFUSALS: Mapping[type[Exception], Callable[[Any, str], Answer]] = {
    KnownError: _known,
    PlainError: _plain,
    **dict.fromkeys(get_args(RequestRefusal), _request_refused),
    **dict.fromkeys(get_args(LoginRefusal), _login_refused),
    NoAnonymousToken: lambda _, __: _plain(PlainError(400, INVALID_ANONYMOUS_TOKEN)),
    NothingToClaim: lambda _, __: _plain(PlainError(400, NO_ANONYMOUS_SESSION)),
    NotAnonymous: lambda _, __: _plain(PlainError(400, NOT_ANONYMOUS)),
    DeadRefreshToken: _dead_token,
    WrongRefreshToken: _dead_token,
    HTTPException: _litestar,
    **dict.fromkeys(REDIS_TROUBLE, _redis),
    Exception: _unexpected,
}
"""What answers each error, or the nearest of its base classes; given the error and the request's path."""


def refusal(error: Exception, path: str) -> Answer:
    """Return the answer to a request that came to an error."""
    return next(REFUSALS[cls] for cls in type(error).__mro__ if cls in REFUSALS)(error, path)
