"""A login without I/O: a generator that yields what to do next and receives the result.

`login_relay_client` carries out the steps over HTTP, blocking or in an event loop. This module decides what to
send, how long to wait, when to retry and how a login ends.
"""

import hashlib
import random
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Annotated, Final, TypeVar
from urllib.parse import quote

import msgspec

from login_relay_client.failures import (
    LoginDenied,
    LoginError,
    LoginExpired,
    LoginRefused,
    LoginUsed,
    ServerUnreachable,
)
from login_relay_client.request import (
    MAX_LIFETIME,
    MIN_LIFETIME,
    Login,
    LoginRequest,
    Prompt,
    printable,
)

# Seconds
MAX_BACKOFF: Final = 15.0  # unless the server asks for more; multiplied by the jitter
MIN_INTERVAL: Final = 0.1  # even if the server says 0: no busy loop
DEFAULT_INTERVAL: Final = 2.0  # if the server does not send one; the published clients use it
DEFAULT_LIFETIME: Final = timedelta(minutes=15)  # if the server does not send one; the relay's own default

VERIFIER_BYTES: Final = 32  # random; 43 characters (RFC 7636 §4.1)
MAX_SERVER_TEXT: Final = 500  # characters; a longer error text does not help at a terminal
UNBOUND_HINT: Final = (
    "(The server may not support code_challenge, which binds a login to its tool. "
    "To log in without it: allow_unbound=True, or --allow-unbound.)"
)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait for what, in seconds.

    A held poll that gets no response and the pause after it must end within the 60 s for which the relay repeats a
    token.
    """

    long_poll: int = 25
    """Sent as `Prefer: wait` (RFC 7240 §4.3); 0: not sent. Proxies close connections that are silent for 30 s."""
    response: float = 10.0
    """For the response to a request. A held poll gets `long_poll` in addition."""
    initiate: float = 10.0
    """For a login code. Until there is one, the person looks at an empty terminal."""
    grace: float = 120.0
    """After the login's end. A login that is approved in its last second can be picked up until then."""
    cancel: float = 1.0
    """For a whole cancel request. The person wants the tool to end now."""


PATIENCE: Final = Patience()


@dataclass(frozen=True)
class HttpRequest:
    """POST this; send the generator an `HttpResponse` or a `NoResponse`."""

    path: str
    """Below `LoginRequest.server`."""
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    """JSON. The only place of the polling code and the code verifier."""
    timeout: float
    """Seconds, for each of: connecting, sending, and every read."""


@dataclass(frozen=True)
class CancelRequest(HttpRequest):
    """POST this once, and give up when `timeout` is over for the whole request. The response does not matter."""


@dataclass(frozen=True)
class HttpResponse:
    """A response, of any kind."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    """The keys are lower-case, or the mapping ignores case."""
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class NoResponse:
    """The request failed. The server may or may not have received it."""

    reason: str


@dataclass(frozen=True)
class Sleep:
    """Wait."""

    seconds: float


Step = HttpRequest | Sleep | Prompt | Login
"""What the generator yields. `Login` is the last."""
Reply = HttpResponse | NoResponse | None
"""What the generator receives; None after every step but an `HttpRequest`."""


def login_steps(
    request: LoginRequest,
    *,
    patience: Patience = PATIENCE,
    clock: Callable[[], float] = time.monotonic,
    jitter: Callable[[], float] = lambda: random.uniform(1.0, 1.5),  # noqa: S311 - spreads load, guards nothing
) -> Generator[Step, Reply, None]:
    """Yield the steps of a login. Carry out each step and `send` its result, until the step is a `Login`.

    If an exception interrupts a step, `throw` it. Once there is a login to cancel, the next step is then a
    `CancelRequest`, and after that the generator raises the exception again. It never yields a second one.

    Args:
        request: where to log in, and as which tool.
        patience: how long to wait for what.
        clock: seconds that never go backwards. Not the time of day, which may be wrong on this machine.
        jitter: a factor ≥ 1 for pauses after failures, so that clients do not all return at once.

    Raises:
        LoginExpired: nobody approved the login in time.
        LoginDenied: somebody denied it.
        LoginUsed: another poller got the token.
        LoginRefused: the server's response is final.
        ServerUnreachable: no usable response.

    """
    headers = {
        "content-type": "application/json",
        "x-stack-access-type": "client",
        "x-stack-project-id": request.project_id,
        "x-stack-publishable-client-key": request.publishable_client_key,
    }
    proof, prompt = yield from _initiate(request, headers, patience, clock, jitter)
    cancel = CancelRequest("/api/v1/auth/cli/cancel", headers, proof, patience.cancel)
    try:
        yield prompt
        refresh_token = yield from _poll(proof, prompt, headers, patience, clock, jitter)
    except (LoginError, GeneratorExit):
        raise  # the login has ended, or nobody carries out steps any more
    except BaseException:
        yield cancel
        raise
    if refresh_token is None:
        yield cancel
        raise _end("expired")
    yield Login(refresh_token, prompt.session_id)


def code_challenge(verifier: str) -> str:
    """Return the code challenge of a code verifier (RFC 7636 §4.2, S256)."""
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def _initiate(
    request: LoginRequest,
    headers: dict[str, str],
    patience: Patience,
    clock: Callable[[], float],
    jitter: Callable[[], float],
) -> Generator[Step, Reply, tuple[bytes, Prompt]]:
    """Start a session; return the body of its polls, and what to show to the person.

    If the response is lost, a session remains whose code nobody has seen; it expires by itself.

    Another server of the same interface may refuse the fields that the relay adds to it. With
    `LoginRequest.allow_unbound` the client then retries without them. A server that ignores them binds nothing, which
    the client cannot see.
    """
    verifier = secrets.token_urlsafe(VERIFIER_BYTES)
    lifetime = {"expires_in_millis": request.expires_in and request.expires_in // timedelta(milliseconds=1)}
    additions = {
        "code_challenge": code_challenge(verifier),
        "client_name": request.client_name,
        "client_version": request.client_version,
        "hostname": request.hostname,
    }
    deadline = clock() + patience.initiate
    failures, binds = 0, True
    while True:
        fields = lifetime | additions if binds else lifetime
        body = msgspec.json.encode({name: value for name, value in fields.items() if value is not None})
        reply = yield HttpRequest("/api/v1/auth/cli", headers, body, patience.response)
        try:
            answer = _read(reply, _Session)
        except LoginRefused as refusal:
            if refusal.code != "SCHEMA_ERROR" or not binds:
                raise
            if not request.allow_unbound:
                hinted = f"{refusal.message} {UNBOUND_HINT}".lstrip()
                raise LoginRefused(refusal.status, refusal.code, hinted) from None
            binds = False
            continue
        if isinstance(answer, _Session):
            proof = {"polling_code": answer.polling_code} | ({"code_verifier": verifier} if binds else {})
            return msgspec.json.encode(proof), _prompt(request, answer, _header(reply, "date"))
        failures += 1
        pause = _backoff(answer, failures, interval=1.0) * jitter()
        if clock() + pause > deadline:
            raise ServerUnreachable(answer.reason)
        yield Sleep(pause)


def _poll(
    body: bytes,
    prompt: Prompt,
    headers: dict[str, str],
    patience: Patience,
    clock: Callable[[], float],
    jitter: Callable[[], float],
) -> Generator[Step, Reply, str | None]:
    """Poll until the session ends; return its token, or None if it is still pending past the client's own deadline.

    No poll starts sooner than one interval after the previous one.
    """
    key = secrets.token_urlsafe(24)  # the same for all polls: if a response is lost, the next poll gets it again
    deadline = clock() + prompt.expires_in.total_seconds() + patience.grace
    wait, failures = patience.long_poll, 0
    while True:
        preferences = {"prefer": f"wait={wait}"} if wait else {}
        started = clock()
        asked = headers | preferences | {"idempotency-key": key}
        reply = yield HttpRequest("/api/v1/auth/cli/poll", asked, body, wait + patience.response)
        took = clock() - started
        unreachable = None
        match _read(reply, _Progress):
            case _Progress("success", str(refresh_token)):
                return refresh_token
            case _Progress("waiting"):
                failures = 0
                held = "wait" in _header(reply, "preference-applied").lower()
                pause = max(0.0, prompt.interval - took) if held else prompt.interval
            case _Progress(status):
                raise _end(status)
            case trouble:
                failures += 1
                pause = _backoff(trouble, failures, prompt.interval) * jitter()
                unreachable = ServerUnreachable(trouble.reason)
                if took > prompt.interval:
                    wait //= 2  # a proxy may have closed a connection that was silent for too long
        if clock() + pause > deadline:
            if unreachable:
                raise unreachable
            return None
        yield Sleep(pause)


def _end(status: str) -> LoginError:
    """Return the error for the status of a poll that ends the login without a token."""
    match status:
        case "expired":
            return LoginExpired("Nobody approved the login in time.")
        case "denied":
            return LoginDenied("The login was denied.")
        case "used":
            return LoginUsed("The login was already picked up.")
        case _:
            return LoginRefused(HTTPStatus.OK, None, f"The server ended the login as {printable(status)!r}.")


class _Session(msgspec.Struct, frozen=True):
    """Response to initiate."""

    polling_code: str
    login_code: str
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)]
    interval: float = DEFAULT_INTERVAL
    session_id: str | None = None


class _Progress(msgspec.Struct, frozen=True):
    """Response to a poll."""

    status: str
    refresh_token: str | None = None


class _KnownError(msgspec.Struct, frozen=True):
    """Final response in JSON; the others are plain text."""

    code: str
    error: str


@dataclass(frozen=True)
class _Trouble:
    """No usable response; a retry may get one."""

    reason: str
    retry_after: float | None = None
    """Seconds."""


_Answer = TypeVar("_Answer", _Session, _Progress, _KnownError)


def _read(reply: Reply, expected: type[_Answer]) -> _Answer | _Trouble:
    """Return the decoded response, or trouble if a retry may help; raise `LoginRefused` if the response is final."""
    if not isinstance(reply, HttpResponse):
        reason = printable(reply.reason, MAX_SERVER_TEXT) if reply else "no response"
        return _Trouble(f"The server cannot be reached: {reason}")
    if reply.status == HTTPStatus.TOO_MANY_REQUESTS or reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        retry_after = _retry_after(_header(reply, "retry-after"), _header(reply, "date"))
        return _Trouble(f"The server answered with HTTP status {reply.status}.", retry_after)
    if reply.status in (HTTPStatus.OK, HTTPStatus.CREATED):
        return _decode(reply.body, expected) or _Trouble("The response does not come from a login relay.")
    known = _decode(reply.body, _KnownError)
    if known:
        raise LoginRefused(reply.status, printable(known.code), printable(known.error, MAX_SERVER_TEXT))
    is_text = _header(reply, "content-type").startswith("text/plain")
    text = printable(reply.body.decode(errors="replace"), MAX_SERVER_TEXT) if is_text else ""
    raise LoginRefused(reply.status, None, text or f"The server answered with HTTP status {reply.status}.")


def _decode(body: bytes, expected: type[_Answer]) -> _Answer | None:
    try:
        return msgspec.json.decode(body, type=expected)
    except (ValueError, RecursionError):  # ValueError: not JSON, not UTF-8, or other JSON
        return None


def _header(reply: Reply, name: str) -> str:
    return reply.headers.get(name, "") if isinstance(reply, HttpResponse) else ""


def _prompt(request: LoginRequest, session: _Session, date: str) -> Prompt:
    code = printable(session.login_code)
    return Prompt(
        login_code=code,
        link=request.confirm_url and request.confirm_url.replace("{login_code}", quote(code, safe="")),
        expires_at=session.expires_at,
        expires_in=request.expires_in or _lifetime(session.expires_at, date),
        interval=max(session.interval, MIN_INTERVAL),
        session_id=session.session_id,
    )


def _lifetime(expires_at: datetime, date: str) -> timedelta:
    """Return how long a session lives: two times of the server's clock, whether or not that clock is right."""
    now = _http_date(date)
    lifetime = expires_at - now if now else DEFAULT_LIFETIME
    return lifetime if MIN_LIFETIME <= lifetime <= MAX_LIFETIME else DEFAULT_LIFETIME


def _backoff(trouble: _Trouble, failures: int, interval: float) -> float:
    """Return the seconds to wait after `failures` in a row: what the server asks for, else twice as long each time."""
    doubled = interval * 2.0 ** min(failures - 1, 10)
    pause = min(doubled, MAX_BACKOFF) if trouble.retry_after is None else trouble.retry_after
    return max(pause, interval)


def _retry_after(value: str, date: str) -> float | None:
    """Return the seconds of a `Retry-After` (RFC 9110 §10.2.3); a date is relative to the response's own `Date`.

    None if the value is not valid.
    """
    if value.isascii() and value.isdecimal():
        return float(value)
    then, now = _http_date(value), _http_date(date)
    return (then - now).total_seconds() if then and now else None


def _http_date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
