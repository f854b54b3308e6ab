"""A login without I/O: a generator that says what to do next and is told what came of it.

`login_relay_client` carries its steps out over HTTP, blocking or in an event loop. What to send, how long to
wait, when to try again and how a login ends is decided here, once.
"""

import random
import secrets
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Annotated, Final, TypeVar
from urllib.parse import quote

import msgspec

from login_relay_client.failures import (
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
from runtime.codes import s256

# Seconds. A poll that hangs, and the pause after it, end within the 60 s for which the relay repeats a token.
LONG_POLL: Final = 25  # asked for with `Prefer: wait` (RFC 7240 §4.3); proxies cut what is silent for 30
REQUEST_TIMEOUT: Final = 10.0  # for an answer; a held poll may take LONG_POLL on top
INITIATE_PATIENCE: Final = 10.0  # until there is a code, somebody looks at an empty terminal
GRACE: Final = 120.0  # a login approved in its last second can be picked up this much later
MAX_BACKOFF: Final = 15.0  # where the server does not ask for more; times the jitter
MIN_INTERVAL: Final = 0.1  # a server that says 0 does not ask for a busy loop
DEFAULT_INTERVAL: Final = 2.0  # of servers that do not tell; what their published clients use
DEFAULT_LIFETIME: Final = timedelta(minutes=15)  # of servers that do not tell; the relay's own default

VERIFIER_BYTES: Final = 32  # random; 43 characters (RFC 7636 §4.1)
MAX_SERVER_TEXT: Final = 500  # characters; more of an error text is no use in a terminal


@dataclass(frozen=True)
class HttpRequest:
    """POST this; tell the generator an `HttpResponse` or a `NoResponse`."""

    path: str
    """Below `LoginRequest.server`."""
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    """JSON. The polling code and the code verifier are here and nowhere else."""
    timeout: float
    """Seconds."""


@dataclass(frozen=True)
class HttpResponse:
    """An answer, whatever it says."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    """Looked up by lower-case names."""
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class NoResponse:
    """The request failed; the server may have seen it or not."""

    reason: str


@dataclass(frozen=True)
class Sleep:
    """Let time pass."""

    seconds: float


Step = HttpRequest | Sleep | Prompt | Login
"""What the generator asks for. `Login` is its last word."""
Reply = HttpResponse | NoResponse | None
"""What it is told; None after everything but an `HttpRequest`."""


def login_steps(
    request: LoginRequest,
    *,
    clock: Callable[[], float] = time.monotonic,
    jitter: Callable[[], float] = lambda: random.uniform(1.0, 1.5),  # noqa: S311 - spreads load, guards nothing
) -> Generator[Step, Reply, None]:
    """Log in: `send(None)`, carry out the step that comes back, send what came of it; so on up to a `Login`.

    Args:
        request: where and as what to log in.
        clock: seconds, never set back. Not the time of day: this machine's may be wrong.
        jitter: a factor ≥ 1 for the pauses after trouble, so that not all clients return at once.

    Raises:
        LoginExpired: nobody approved in time.
        LoginUsed: the token went elsewhere.
        LoginRefused: the server's answer is final.
        ServerUnreachable: no usable answer, at first for 10 s, later until 120 s after the login expired.

    """
    headers = {
        "content-type": "application/json",
        "x-stack-access-type": "client",
        "x-stack-project-id": request.project_id,
        "x-stack-publishable-client-key": request.publishable_client_key,
    }
    shown, prompt = yield from _initiate(request, headers, clock, jitter)
    yield prompt
    refresh_token = yield from _poll(shown, prompt, headers, clock, jitter)
    yield Login(refresh_token, prompt.session_id)


def _initiate(
    request: LoginRequest, headers: dict[str, str], clock: Callable[[], float], jitter: Callable[[], float]
) -> Generator[Step, Reply, tuple[dict[str, str], Prompt]]:
    """Start a session; return what each of its polls must show, and what to show to the person.

    A lost answer leaves a session behind that nobody saw the code of; it expires by itself.

    A server of the same interface may refuse what the relay adds to it; it is then asked without. One that ignores the
    additions gets a verifier with each poll, and ignores it too.
    """
    verifier = secrets.token_urlsafe(VERIFIER_BYTES)
    lifetime = {"expires_in_millis": request.expires_in and request.expires_in // timedelta(milliseconds=1)}
    additions = {
        "code_challenge": s256(verifier).decode(),
        "client_name": request.client_name,
        "client_version": request.client_version,
        "hostname": request.hostname,
    }
    deadline = clock() + INITIATE_PATIENCE
    failures, binds = 0, True
    while True:
        fields = lifetime | additions if binds else lifetime
        body = msgspec.json.encode({name: value for name, value in fields.items() if value is not None})
        reply = yield HttpRequest("/api/v1/auth/cli", headers, body, REQUEST_TIMEOUT)
        try:
            answer = _read(reply, _Session)
        except LoginRefused as refusal:
            if refusal.code != "SCHEMA_ERROR" or not binds:
                raise
            binds = False
            continue
        if isinstance(answer, _Session):
            proof = {"code_verifier": verifier} if binds else {}
            return {"polling_code": answer.polling_code} | proof, _prompt(request, answer, _header(reply, "date"))
        failures += 1
        pause = _backoff(answer, failures, interval=1.0) * jitter()
        if clock() + pause > deadline:
            raise ServerUnreachable(answer.reason)
        yield Sleep(pause)


def _poll(
    shown: dict[str, str],
    prompt: Prompt,
    headers: dict[str, str],
    clock: Callable[[], float],
    jitter: Callable[[], float],
) -> Generator[Step, Reply, str]:
    """Poll until the session ends. No poll starts sooner than one interval after the one before it."""
    body = msgspec.json.encode(shown)
    key = secrets.token_urlsafe(24)  # the same for all polls: when an answer is lost, the next poll hears it
    deadline = clock() + prompt.expires_in.total_seconds() + GRACE
    expired = LoginExpired("Nobody approved the login in time.")
    wait, failures = LONG_POLL, 0
    while True:
        preferences = {"prefer": f"wait={wait}"} if wait else {}
        started = clock()
        asked = headers | preferences | {"idempotency-key": key}
        reply = yield HttpRequest("/api/v1/auth/cli/poll", asked, body, wait + REQUEST_TIMEOUT)
        took = clock() - started
        too_late: LoginError
        match _read(reply, _Progress):
            case _Progress("success", str(refresh_token)):
                return refresh_token
            case _Progress("used"):
                raise LoginUsed("The login was picked up before.")
            case _Progress("expired"):
                raise expired
            case _Progress("waiting"):
                failures = 0
                held = "wait" in _header(reply, "preference-applied").lower()
                pause = max(0.0, prompt.interval - took) if held else prompt.interval
                too_late = expired
            case _Progress(status):  # "denied" or whatever a newer server says
                raise LoginRefused(HTTPStatus.OK, None, f"The server ended the login as {printable(status)!r}.")
            case trouble:
                failures += 1
                pause = _backoff(trouble, failures, prompt.interval) * jitter()
                too_late = ServerUnreachable(trouble.reason)
                if took > prompt.interval:
                    wait //= 2  # there may be a proxy that cuts what is silent for so long
        if clock() + pause > deadline:
            raise too_late
        yield Sleep(pause)


class _Session(msgspec.Struct, frozen=True):
    """Answer to initiate."""

    polling_code: str
    login_code: str
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)]
    interval: float = DEFAULT_INTERVAL
    session_id: str | None = None


class _Progress(msgspec.Struct, frozen=True):
    """Answer to a poll."""

    status: str
    refresh_token: str | None = None


class _KnownError(msgspec.Struct, frozen=True):
    """Final answer in JSON; the others are plain text."""

    code: str
    error: str


@dataclass(frozen=True)
class _Trouble:
    """An answer, or the lack of one, that may be better next time."""

    reason: str
    retry_after: float | None = None
    """Seconds."""


_Answer = TypeVar("_Answer", _Session, _Progress, _KnownError)


def _read(reply: Reply, expected: type[_Answer]) -> _Answer | _Trouble:
    """Tell an answer from trouble; raise `LoginRefused` for what is final."""
    if not isinstance(reply, HttpResponse):
        reason = printable(reply.reason, MAX_SERVER_TEXT) if reply else "no answer"
        return _Trouble(f"The server cannot be reached: {reason}")
    if reply.status == HTTPStatus.TOO_MANY_REQUESTS or reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        retry_after = _retry_after(_header(reply, "retry-after"), _header(reply, "date"))
        return _Trouble(f"The server answered with HTTP status {reply.status}.", retry_after)
    if reply.status in (HTTPStatus.OK, HTTPStatus.CREATED):
        return _decode(reply.body, expected) or _Trouble("The answer does not come from a login relay.")
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
    """How long a session lives by the server's own clock: its two times are compared with each other only."""
    now = _http_date(date)
    lifetime = expires_at - now if now else DEFAULT_LIFETIME
    return lifetime if MIN_LIFETIME <= lifetime <= MAX_LIFETIME else DEFAULT_LIFETIME


def _backoff(trouble: _Trouble, failures: int, interval: float) -> float:
    """How long to wait after so many failures in a row: as the server asks, else twice as long each time."""
    doubled = interval * 2.0 ** min(failures - 1, 10)
    pause = min(doubled, MAX_BACKOFF) if trouble.retry_after is None else trouble.retry_after
    return max(pause, interval)


def _retry_after(value: str, date: str) -> float | None:
    """Seconds, from either form of RFC 9110 §10.2.3; a date counts from the answer's own `Date`."""
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
