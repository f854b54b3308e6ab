import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

import api
from tests.support.attacker import PROXIES, Client, new_project
from tests.support.redis_server import RedisServer
from tests.support.services import Service, StartService

TIMEOUT_MS = 500
PATIENCE = 10.0  # seconds; long enough for a busy machine, and much longer than the time-out
AT_ONCE = 16_777_216  # bytes
HEAD = b"POST /api/v1/auth/cli HTTP/1.1\r\nHost: relay\r\n"

EVERYWHERE = {
    "cache-control": "no-store, max-age=0",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@pytest.fixture(scope="module")
def target(start_shared: StartService) -> Service:
    """An API that waits for no client, started with everything that could make it reveal details."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITESTAR_DEBUG", "1")
        patch.setenv("LITESTAR_PDB", "1")
        return start_shared(request_timeout_ms=TIMEOUT_MS, trusted_proxies=PROXIES)


@pytest.fixture
def client(target: Service) -> Client:
    """A tool of a project of its own."""
    return Client(target, new_project(target))


@pytest.fixture(scope="module")
def patient(start_shared: StartService) -> Service:
    """An API that waits longer for bodies than a test does."""
    return start_shared(request_timeout_ms=60_000)


def with_key(target: Service) -> bytes:
    """Return the start of a head that has a right key."""
    keys = "".join(f"{name}: {value}\r\n" for name, value in target.project.client_headers.items())
    return HEAD + keys.encode() + b"Content-Type: application/json\r\n"


def exchange(target: Service, *parts: bytes) -> tuple[bytes, float]:
    """Send parts and wait for the server to close; returns what it sent, and the seconds until then."""
    url = urlsplit(target.url)
    said = b""
    with closing(socket.create_connection((url.hostname, url.port), timeout=PATIENCE)) as connection:
        started = time.monotonic()
        for part in parts:
            connection.sendall(part)
        while received := connection.recv(65_536):
            said += received
    return said, time.monotonic() - started


def trickle(target: Service, head: bytes, piece: bytes) -> bytes:
    """Send a head and then, endlessly, a piece every tenth of a second, until the server has had enough."""
    url = urlsplit(target.url)
    until = time.monotonic() + PATIENCE
    with closing(socket.create_connection((url.hostname, url.port), timeout=0.1)) as connection:
        connection.sendall(head)
        while time.monotonic() < until:
            try:
                connection.sendall(piece)
                return connection.recv(65_536)
            except TimeoutError:
                continue
            except ConnectionError:
                return b""
    raise AssertionError("the server is still listening")


@pytest.mark.parametrize("start", [b"", b"POST /api", HEAD, HEAD + b"Content-Length: 2\r\n"])
def test_client_that_stalls_before_its_head_is_complete_is_dropped(target: Service, start: bytes) -> None:
    """A connection that sends nothing, or starts and stops, is closed after the time-out (slowloris)."""
    said, seconds = exchange(target, start)
    assert said == b""
    assert TIMEOUT_MS / 1000 <= seconds + 0.1 < PATIENCE


def test_client_that_trickles_its_head_is_dropped(target: Service) -> None:
    """The time-out is for the whole head, not for each byte of it."""
    assert trickle(target, HEAD, b"X-Y: z\r\n") == b""


def test_idle_connection_is_closed(target: Service) -> None:
    """A client that keeps a connection open without a request loses it."""
    said, seconds = exchange(target, b"GET /health/live HTTP/1.1\r\nHost: relay\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 ")
    assert seconds < PATIENCE


def test_client_that_stalls_in_its_body_is_told_and_dropped(target: Service) -> None:
    """The time-out also covers the body; the client gets an answer before its connection is closed."""
    said, seconds = exchange(target, with_key(target) + b"Content-Length: 10\r\n\r\n{")
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in said.lower()
    assert said.endswith(b"The request was too slow to arrive.")
    assert TIMEOUT_MS / 1000 <= seconds + 0.1 < PATIENCE


def test_client_that_trickles_its_body_is_dropped(target: Service) -> None:
    """The time-out is for the whole body."""
    said = trickle(target, with_key(target) + b"Content-Length: 60000\r\n\r\n", b" ")
    assert said.startswith(b"HTTP/1.1 408 ")


def test_body_past_the_limit_is_not_read(target: Service) -> None:
    """A body that is announced as larger is rejected by its length, before a byte of it is parsed or waited for."""
    said, seconds = exchange(target, with_key(target) + b"Content-Length: 65537\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 413 ")
    assert seconds < PATIENCE


def test_endless_body_is_cut_at_the_limit(target: Service) -> None:
    """A chunked body does not announce its size, and is rejected once it is too large."""
    chunk = b"1000\r\n" + b" " * 4_096 + b"\r\n"
    said, _ = exchange(target, with_key(target) + b"Transfer-Encoding: chunked\r\n\r\n", chunk * 17)
    assert said.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "headers", [b"", b"X-Stack-Publishable-Client-Key: pck_wrong\r\n"], ids=["no key", "wrong key"]
)
@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 60000\r\n\r\n{",
        b"Content-Length: 10\r\n\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n" + (b"1000\r\n" + b" " * 4_096 + b"\r\n") * 2,
    ],
    ids=["large", "small", "endless"],
)
def test_caller_without_a_right_key_has_no_body_waited_for(patient: Service, headers: bytes, body: bytes) -> None:
    """Its head is enough to refuse it: no body is collected for it; a small one has a second to arrive."""
    project = f"X-Stack-Project-Id: {patient.project.project_id}\r\n".encode()
    said, seconds = exchange(patient, HEAD + project + headers + body)
    assert said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 401 "))
    assert b"\r\nconnection: close\r\n" in said.lower()
    assert seconds < PATIENCE


@pytest.mark.parametrize("method", [b"GET", b"DELETE"])
def test_body_of_a_request_that_has_none_is_not_waited_for(patient: Service, method: bytes) -> None:
    """No endpoint reads it, so it is not collected; the connection ends with the answer."""
    said, seconds = exchange(
        patient, method + b" /health/live HTTP/1.1\r\nHost: relay\r\nContent-Length: 60000\r\n\r\n{"
    )
    assert said.startswith(b"HTTP/1.1 200 " if method == b"GET" else b"HTTP/1.1 405 ")
    assert b"\r\nconnection: close\r\n" in said.lower()
    assert seconds < PATIENCE


def connect(target: Service) -> socket.socket:
    """Open a connection."""
    url = urlsplit(target.url)
    return socket.create_connection((url.hostname, url.port), timeout=PATIENCE)


def test_stalled_bodies_take_only_so_much_memory_together(patient: Service) -> None:
    """Beyond 16 MiB of incomplete bodies a large one is refused with 503; small ones are not affected."""
    head = with_key(patient) + b"Content-Length: 65536\r\n\r\n{"
    answer = b""
    with contextlib.ExitStack() as stack:
        stalled = [stack.enter_context(closing(connect(patient))) for _ in range(AT_ONCE // 65_535 + 2)]
        for connection in stalled:
            connection.sendall(head + b" " * 65_534)
        refused, _, _ = select.select(stalled, [], [], PATIENCE)
        assert 0 < len(refused) < 10
        for connection in refused:
            answer = connection.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert {b"retry-after: 1", b"connection: close"} <= set(answer.lower().split(b"\r\n"))
        with closing(connect(patient)) as honest:
            honest.sendall(with_key(patient) + b"Content-Length: 2\r\n\r\n{}")
            assert honest.recv(65_536).startswith(b"HTTP/1.1 200 ")
    until = time.monotonic() + PATIENCE
    while answer.startswith(b"HTTP/1.1 503 "):  # until the server notices that they left
        assert time.monotonic() < until
        with closing(connect(patient)) as honest:
            honest.sendall(head + b" " * 65_535)
            answer = honest.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "headers",
    [b"X: " + b"a" * 70_000 + b"\r\n", b"".join(b"X-%d: a\r\n" % number for number in range(101))],
    ids=["long", "many"],
)
def test_head_past_the_limit_is_refused(target: Service, headers: bytes) -> None:
    """A head of 70 KiB, or of more than a hundred headers, reaches no code of ours."""
    said, _ = exchange(target, b"GET /health/live HTTP/1.1\r\nHost: relay\r\n" + headers + b"\r\n")
    assert said.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "ambiguous",
    [
        b"Content-Length: 4\r\nContent-Length: 5\r\n\r\n{}  ",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: +2\r\n\r\n{}",
        b"Content-Length: 2, 2\r\n\r\n{}",
        b"Content-Length : 2\r\n\r\n{}",
        b"Content-Length: 2\r\nTransfer-Encoding : chunked\r\n\r\n{}",
        b"Content-Length: 2\r\nTransfer-Encoding: xchunked\r\n\r\n{}",
        b"Content-Length: 2\r\nTransfer-Encoding: \x0bchunked\r\n\r\n{}",
        b"Content-Length: 2\r\nTransfer-Encoding:\r\n chunked\r\n\r\n{}",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"X: a\rContent-Length: 2\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ],
)
def test_request_of_two_lengths_is_refused(target: Service, ambiguous: bytes) -> None:
    """A request that a proxy might read differently is not read at all (request smuggling)."""
    said, _ = exchange(target, HEAD + ambiguous + b"GET /health/live HTTP/1.1\r\nHost: relay\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1 ") == 1


def test_chunks_and_a_length_end_the_connection(target: Service) -> None:
    """The length is ignored, and nothing after it is read as a request (RFC 9112 §6.1)."""
    smuggled = b"GET /health/live HTTP/1.1\r\nHost: relay\r\n\r\n"
    lengths = b"Content-Type: application/json\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n"
    said, _ = exchange(target, HEAD + lengths + b"2\r\n{}\r\n0\r\n\r\n", smuggled)
    assert said.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in said.lower()


def answers(client: Client) -> Iterator[httpx.Response]:
    """Yield one answer of each kind."""
    url = client.service.url
    login = client.initiate()
    yield httpx.get(f"{url}/health/live", trust_env=False)
    yield httpx.get(f"{url}/schema", trust_env=False)
    yield httpx.get(f"{url}/nothing", trust_env=False)
    yield httpx.get(f"{url}/api/v1/auth/cli", trust_env=False)
    yield httpx.options(f"{url}/api/v1/auth/cli", trust_env=False)
    yield client.post("", {"unknown": 1})
    yield client.post("", {}, {"x-stack-project-id": client.project.project_id})
    yield client.poll(login.polling_code)
    yield client.poll("lrp_wrong")
    yield client.complete("wrong")
    yield client.complete(login.login_code)
    yield client.poll(login.polling_code)


def test_every_answer_is_fit_for_a_browser_and_names_no_server(client: Client) -> None:
    """Nothing is cached, sniffed, framed or sent as a referrer, and no header names the server."""
    for answer in answers(client):
        assert {name: answer.headers.get(name) for name in EVERYWHERE} == EVERYWHERE, answer.request.url
        assert answer.headers.get("server", "") == ""
        assert "x-powered-by" not in answer.headers
        assert "granian" not in str(answer.headers).lower()


def test_defect_shows_nothing_of_itself(redis_server: RedisServer, target: Service, client: Client) -> None:
    """A request that meets a defect is answered with one sentence, whatever the environment sets for debugging."""
    login = client.initiate()
    with redis_server.client() as redis:
        redis.hset(target.keys.session(login.session_id), "state", "a state of no version")
    answer = client.poll(login.polling_code)
    assert answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR
    assert answer.text == "The relay failed to answer. This is a defect of the relay."
    assert answer.headers["content-type"].startswith("text/plain")
    assert client.initiate()  # it has not stopped to be debugged


def test_nothing_in_the_environment_switches_debugging_on() -> None:
    """The framework's own variables make it neither show stack traces nor stop in a debugger."""
    variables = {"LITESTAR_DEBUG": "1", "LITESTAR_PDB": "1", "LOGIN_RELAY_REDIS_URL": "redis://127.0.0.1:1"}
    code = "from api.app import create_app; app = create_app(); print(app.debug, app.pdb_on_exception)"
    done = subprocess.run(
        (sys.executable, "-c", code), env=os.environ | variables, check=True, capture_output=True, text=True
    )
    assert done.stdout == "False False\n"


def test_cookies_mean_nothing(client: Client) -> None:
    """A cookie neither helps nor harms a request, and none is ever set."""
    keys = client.project.client_headers
    cookie = {"cookie": "; ".join(f"{name}={value}" for name, value in keys.items())}
    without = client.post("", {}, {"x-none": ""})
    with_cookie = client.post("", {}, cookie)
    assert (with_cookie.status_code, with_cookie.content) == (without.status_code, without.content)
    assert with_cookie.status_code == httpx.codes.BAD_REQUEST
    assert client.post("", {}, {**keys, **cookie}).status_code == httpx.codes.OK
    for answer in answers(client):
        assert "set-cookie" not in answer.headers
    sources = Path(api.__file__).parent.rglob("*.py")
    assert not [source.name for source in sources if ".cookies" in source.read_text()]
