"""Drives one login without I/O: scripted answers, and a clock that only answers and pauses move."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from login_relay_client.failures import LoginError
from login_relay_client.request import Login, LoginRequest, Prompt
from login_relay_client.steps import (
    HttpRequest,
    HttpResponse,
    NoResponse,
    Reply,
    Sleep,
    login_steps,
)

POLLING_CODE = "lrp_polling-secret"
LOGIN_CODE = "WDJB-MJHT-XKQP"
TOKEN = "lrt_refresh-secret"
KEY = "pck_publishable"
INTERVAL = 2.0
LIFETIME = 900.0
GRACE = 120.0

REQUEST = LoginRequest(server="https://relay.example", project_id="p", publishable_client_key=KEY, hostname=None)

Timed = tuple[float, Reply]
"""An answer and the seconds it takes."""


def answer(status: int, body: object = None, **headers: str) -> HttpResponse:
    """Return a JSON answer; header names are written with underscores."""
    return HttpResponse(
        status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(body).encode()
    )


def initiated(**fields: object) -> HttpResponse:
    """Return the answer to initiate, from a server in the year 2001: its clock differs from ours."""
    now = datetime(2001, 1, 1, tzinfo=UTC)
    body = {
        "polling_code": POLLING_CODE,
        "login_code": LOGIN_CODE,
        "expires_at": (now + timedelta(seconds=LIFETIME)).isoformat(),
        "interval": INTERVAL,
        "session_id": "s1",
    }
    return answer(200, body | fields, date=format_datetime(now, usegmt=True))


WAITING = answer(200, {"status": "waiting"})
HELD = answer(200, {"status": "waiting"}, preference_applied="wait=25")
USED = answer(200, {"status": "used"})
EXPIRED = answer(200, {"status": "expired"})
SUCCESS = answer(201, {"status": "success", "refresh_token": TOKEN})
LOST = NoResponse("connection reset")


@dataclass
class Run:
    """What a client did and how it ended; times are seconds from its start."""

    requests: list[tuple[float, HttpRequest]] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    prompt: Prompt | None = None
    end: Login | LoginError | None = None
    ended: float = 0.0

    @property
    def polls(self) -> list[tuple[float, HttpRequest]]:
        """The requests with a polling code."""
        return [(at, request) for at, request in self.requests if request.path.endswith("/poll")]


def run(
    answers: Iterable[Timed] | Callable[[HttpRequest], Timed],
    request: LoginRequest = REQUEST,
    *,
    jitter: float = 1.0,
    sleep: Callable[[float], float] = lambda seconds: seconds,
) -> Run:
    """Drive one login to its end by a clock that only these answers and its own pauses move."""
    now = 5_000.0
    this = Run()
    script = answers if callable(answers) else _next_of(iter(answers))
    steps = login_steps(request, clock=lambda: now, jitter=lambda: jitter)
    reply: Reply = None
    try:
        while this.end is None:
            step, reply = steps.send(reply), None
            match step:
                case HttpRequest():
                    this.requests.append((now - 5_000, step))
                    seconds, reply = script(step)
                    now += seconds
                    this.answered.append(now - 5_000)
                case Sleep(seconds):
                    this.pauses.append(seconds)
                    now += sleep(seconds)
                case Prompt():
                    this.prompt = step
                case Login():
                    this.end = step
    except LoginError as error:
        this.end = error
    this.ended = now - 5_000
    return this


def _next_of(answers: Iterator[Timed]) -> Callable[[HttpRequest], Timed]:
    return lambda _: next(answers)


def script(*replies: Reply, seconds: float = 0.0) -> list[Timed]:
    """Return answers to initiate and to these polls, each after that many seconds."""
    return [(0.0, initiated()), *((seconds, reply) for reply in replies)]
