"""A server on a loopback socket that misbehaves as scripted, to test the client."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic

POLLING_CODE = "lrp_polling-secret"
LOGIN_CODE = "WDJB-MJHT-XKQP"
TOKEN = "lrt_refresh-secret"
PROJECT = "6b3f8f1e-4f0c-4c3e-9d5e-0f4c0d8f6a11"
KEY = "pck_publishable"


@dataclass
class Received:
    """One request as it came in."""

    at: float
    """Seconds of the monotonic clock."""
    path: str
    headers: dict[str, str]
    body: dict[str, object]


Behaviour = Callable[[BaseHTTPRequestHandler], None]
"""The behaviour after a request was read."""


def answer(status: int, body: object, **headers: str) -> Behaviour:
    """Answer in JSON, or in plain text where the body is one; header names are written with underscores."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        is_text = isinstance(body, str)
        content = str(body).encode() if is_text else json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("content-type", "text/plain; charset=utf-8" if is_text else "application/json")
        handler.send_header("content-length", str(len(content)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return behave


def initiated(**fields: object) -> Behaviour:
    """Answer an initiate, with a short interval to keep tests short."""
    session = {
        "polling_code": POLLING_CODE,
        "login_code": LOGIN_CODE,
        "expires_at": (datetime.now(UTC) + timedelta(minutes=15)).isoformat(),
        "interval": 0.1,
        "session_id": "s1",
    }
    return answer(200, session | fields)


WAITING = answer(200, {"status": "waiting"})
USED = answer(200, {"status": "used"})
DENIED = answer(200, {"status": "denied"})
EXPIRED = answer(200, {"status": "expired"})
SUCCESS = answer(201, {"status": "success", "refresh_token": TOKEN})
CANCELLED = answer(200, {})


def drop(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection instead of answering."""
    handler.close_connection = True


def break_off(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection in the middle of an answer."""
    handler.wfile.write(b'HTTP/1.1 201 Created\r\ncontent-length: 100\r\n\r\n{"status":"succ')
    handler.close_connection = True


def babble(handler: BaseHTTPRequestHandler) -> None:
    """Answer with something that is not HTTP."""
    handler.wfile.write(b"220 mail.example ESMTP\r\n")
    handler.close_connection = True


def hang(handler: BaseHTTPRequestHandler) -> None:
    """Do not answer until the client disconnects."""
    handler.rfile.read(1)
    handler.close_connection = True


def hanging(begun: threading.Event) -> Behaviour:
    """Behave like `hang`, and set the event when it begins."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        begun.set()
        hang(handler)

    return behave


@dataclass
class ScriptedRelay:
    """Answers each request by the next behaviour of its script."""

    url: str
    script: list[Behaviour] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)
    """Set when a client has closed a connection."""

    @property
    def polls(self) -> list[Received]:
        """The requests with a polling code."""
        return [request for request in self.received if request.path.endswith("/poll")]

    @property
    def cancels(self) -> list[Received]:
        """The requests that cancel a login."""
        return [request for request in self.received if request.path.endswith("/cancel")]


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing about clients that hang up."""


@contextmanager
def scripted_relay(certificate: Path | None = None) -> Iterator[ScriptedRelay]:
    """Run one on a free port, over TLS where there is a certificate (PEM, with its key)."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            relay.received.append(Received(monotonic(), self.path, headers, body))
            relay.script.pop(0)(self)

        def finish(self) -> None:
            super().finish()
            relay.hung_up.set()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with _Server(("127.0.0.1", 0), Handler) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        relay = ScriptedRelay(f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield relay
        finally:
            server.shutdown()
            thread.join()
