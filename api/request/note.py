"""Notes the id, session and duration of each request for the log and the metrics.

While a request is answered, only a few attributes are set. Its log line and its counts are written a moment later,
together with those of other requests: one by one, they would cost a pending poll a tenth of its time
(docs/adr/0012-requests-are-noted-in-batches.md).
"""

import asyncio
import random
import re
import sys
import time
from collections import Counter as Tally
from collections.abc import MutableMapping
from contextvars import Context, ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import structlog
from litestar.types import HTTPScope
from prometheus_client import Counter

from api.request.headers import Headers, header
from api.request.metrics import NO_ROUTE, requests
from runtime.redaction import redact
from runtime.tracing import traceparent

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from api.request.spans import RequestSpans

FLUSH_AFTER = 0.1  # seconds; a killed process loses at most this much of its log

REQUEST_ID_PATTERN = r"[A-Za-z0-9._~:/+=@-]{1,128}"  # no character that a terminal, shell or log viewer interprets
_REQUEST_ID = re.compile(REQUEST_ID_PATTERN)


class Note:
    """One request: answered, or being answered."""

    __slots__ = (
        *("at", "counter", "is_cut", "method", "request_id", "route", "seconds", "session_id", "span", "started"),
        "status",
    )
    # Set by `Noting.end`:
    at: float
    seconds: float

    def __init__(self, given: str | None, method: str = "", route: str = NO_ROUTE) -> None:
        if given is None or not _REQUEST_ID.fullmatch(given) or redact(given) != given:  # it would be logged
            given = f"{random.getrandbits(128):032x}"  # not a secret, so no costly system call
        self.request_id = given
        self.method = method
        self.route = route
        self.status = 0
        """0 until it is answered."""
        self.session_id: str | None = None
        """Known as soon as the request's code has been read."""
        self.counter: Counter | None = None
        """The counter of its outcome."""
        self.span: Span | None = None
        """None if traces are off."""
        self.is_cut = False
        """Whether it was answered before the end of its body was received."""
        self.started = time.perf_counter()


class AskedBy(NamedTuple):
    """The request that recorded a command, for logs and traces."""

    request_id: str | None
    traceparent: str | None


_log = structlog.get_logger("api")
_encoder = msgspec.json.Encoder()
_current: ContextVar[Note | None] = ContextVar("request", default=None)


def note_session(session_id: str) -> None:
    """Note the session of the request that is being answered."""
    if (note := _current.get()) is not None:
        note.session_id = session_id


def note_count(counter: Counter) -> None:
    """Note the counter of the request's outcome; it is increased when the request has been answered."""
    if (note := _current.get()) is not None:
        note.counter = counter


def note_outcome(outcome: str) -> None:
    """Note the outcome of the request's command in its span."""
    if (note := _current.get()) is not None and note.span is not None:
        note.span.add_event("outcome", {"login_relay.outcome": outcome})


def asked_by() -> AskedBy:
    """Return the ids of the request that is being answered, for its command to carry."""
    note = _current.get()
    if note is None:
        return AskedBy(None, None)
    return AskedBy(note.request_id, traceparent(note.span) if note.span else None)


def name_request(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return a log line with the ids of the current request and its session added (a structlog processor)."""
    if (note := _current.get()) is not None:
        event["request_id"] = note.request_id
        if note.session_id is not None:
            event["session_id"] = note.session_id
    return event


class RequestLine(msgspec.Struct, omit_defaults=True):
    """The log line of one request. It has no path and no body, which may hold anything; `route` is one of ours."""

    timestamp: datetime
    level: str
    event: str
    method: str
    route: str
    status: int
    ms: float
    request_id: str
    session_id: str | None = None


class Noting:
    """Notes the requests of one application."""

    def __init__(
        self,
        id_headers: tuple[bytes, ...],
        spans: "RequestSpans | None",
        *,
        counts: bool,
        logs: bool,
        as_json: bool,
    ) -> None:
        self._id_headers = id_headers
        self._answered: list[Note] = []
        self._spans = spans
        self._counts = counts
        self._logs = logs
        self._as_json = as_json

    def begin(self, scope: HTTPScope, headers: Headers) -> Note:
        """Start the note of a request, make it the current one, and return it."""
        note = Note(header(headers, self._id_headers), scope["method"], scope.get("path_template") or NO_ROUTE)
        if self._spans is not None:
            note.span = self._spans.begin(scope, headers)
        _current.set(note)
        return note

    def unanswered(self, scope: HTTPScope, headers: Headers) -> Note | None:
        """Return the note of the current request unless it has been ended.

        If Litestar refused the request before it called anything of ours, the note begins now.
        """
        note = _current.get()
        if note is None:
            note = self.begin(scope, headers)
            note.is_cut = True
        return None if note.status else note

    def end(self, note: Note, status: int) -> None:
        """Complete a note. `status` is the real one, even if 200 is sent."""
        note.at, note.seconds, note.status = time.time(), time.perf_counter() - note.started, status
        if self._counts or self._logs:
            if not self._answered:
                asyncio.get_running_loop().call_later(FLUSH_AFTER, self.flush, context=Context())
            self._answered.append(note)
        if self._spans is not None and note.span is not None:
            self._spans.end(note.span, status, note.request_id, note.session_id)

    def close(self) -> None:
        """Write the remaining notes and send the remaining spans."""
        self.flush()
        if self._spans is not None:
            self._spans.close()

    def flush(self) -> None:
        """Count and log the requests answered since the last flush."""
        answered, self._answered = self._answered, []
        if self._counts:
            for note in answered:
                requests(note.route, note.status).observe(note.seconds)
            for counter, times in Tally(note.counter for note in answered if note.counter).items():
                counter.inc(times)
        if self._logs and self._as_json:
            sys.stderr.buffer.write(_encoder.encode_lines([_line(note) for note in answered]))
            sys.stderr.buffer.flush()
        elif self._logs:
            for note in answered:
                line = msgspec.to_builtins(_line(note))
                _log.info(line.pop("event"), **{name: line[name] for name in line.keys() - {"timestamp", "level"}})


def _line(note: Note) -> RequestLine:
    return RequestLine(
        datetime.fromtimestamp(note.at, UTC),
        "info",
        "request",
        note.method,
        note.route,
        note.status,
        round(note.seconds * 1000, 2),
        note.request_id,
        note.session_id,
    )
