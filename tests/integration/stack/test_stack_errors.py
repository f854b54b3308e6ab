"""docs/wire.md 2, 5 and 6: headers of every answer, errors in plain text, errors sent as 200, and 503."""

import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.redis_server import RedisServer, embedded_server
from tests.support.services import services
from tests.support.wire import COMPLETE, ENDPOINTS, INITIATE, POLL, StartWire, Wire

API_PATHS = [prefix + path for prefix in ("/api/v1", "/api/latest") for path in ENDPOINTS]
OVERRIDE = {"x-stack-override-error-status": "true"}

RECORDED = (
    "The request is recorded but not done yet: no worker answered in time. "
    "Send it again with the same Idempotency-Key to learn its outcome."
)
BUSY = "The relay is busy. Nothing was recorded; try again."
STORE_AWAY = "The relay cannot reach its store just now. Nothing is lost; try again."


def is_plain(response: httpx.Response, status: int, text: str) -> bool:
    """Return whether the answer is exactly this text; the client has checked the headers of all answers."""
    plain = response.headers["content-type"] == "text/plain; charset=utf-8"
    return plain and (response.status_code, response.text) == (status, text)


def unavailable(response: httpx.Response, text: str) -> bool:
    """Return whether the answer says that the request may be sent again, and when."""
    return is_plain(response, 503, text) and response.headers["retry-after"] == "1"


def allowed(response: httpx.Response) -> set[str]:
    """Return the methods that the answer names."""
    return set(response.headers["allow"].split(", "))


@pytest.mark.parametrize("path", ["/", "/api/v1", "/api/v2/auth/cli", "/auth/cli", "/api/v1/auth/cli/x", "/%ff%00"])
def test_unknown_address_is_a_plain_404(wire: Wire, path: str) -> None:
    """With the headers of all answers."""
    for method in ("GET", "POST"):
        assert is_plain(wire.client.request(method, path), 404, "There is nothing at this address.")


@pytest.mark.parametrize("path", API_PATHS)
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "TRACE", "BREW"])
def test_wrong_method_is_a_plain_405(wire: Wire, path: str, method: str) -> None:
    """It names the methods that exist."""
    response = wire.client.request(method, path, headers=wire.client_headers)
    assert is_plain(response, 405, "This address does not take this method.")
    assert allowed(response) == {"OPTIONS", "POST"}


@pytest.mark.parametrize("path", [*API_PATHS, "/health/live", "/health/ready", "/schema"])
def test_head_and_options_have_no_body(wire: Wire, path: str) -> None:
    """HEAD is not supported; OPTIONS names the methods that are."""
    head, options = wire.client.head(path), wire.client.options(path)
    assert (head.status_code, head.content) == (405, b"")
    assert (options.status_code, options.content) == (204, b"")
    assert allowed(options) == allowed(head) == {"OPTIONS", "POST" if path in API_PATHS else "GET"}


def test_schema_is_the_document_that_the_answers_are_held_against(wire: Wire) -> None:
    """In JSON, at two addresses, and complete in itself."""
    for path in ("/schema", "/schema/openapi.json"):
        response = wire.client.get(path)
        assert response.headers["content-type"] == "application/json"
        assert response.json()["paths"].keys() >= {"/api/v1/auth/cli", "/health/ready"}
    assert wire.client.get("/schema/swagger").status_code == httpx.codes.NOT_FOUND


def test_health_answers_name_what_is_well(wire: Wire) -> None:
    """To any caller."""
    assert wire.client.get("/health/live").json() == {"status": "live"}
    assert wire.client.get("/health/ready").json() == {"status": "ready"}


def test_every_answer_has_its_own_request_id(wire: Wire) -> None:
    """Two answers never share one."""
    ids = {wire.post(INITIATE).headers["x-stack-request-id"] for _ in range(5)}
    assert len(ids) == 5


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (INITIATE, {"anon_refresh_token": "x"}, 400),
        (INITIATE, {"unknown": 1}, 400),
        (POLL, {"polling_code": "x"}, 400),
        (COMPLETE, {"login_code": "x"}, 400),
        (COMPLETE, {"login_code": "x" * 70_000}, 413),
        ("/nowhere", None, 404),
    ],
)
def test_error_status_is_overridden_on_request(wire: Wire, path: str, body: object, status: int) -> None:
    """A 4xx goes out as 200; body and all other headers are as they would have been (docs/wire.md 2)."""
    plain = wire.post(path, json=body)
    overridden = wire.post(path, json=body, headers=wire.server_headers | OVERRIDE)
    assert (plain.status_code, overridden.status_code) == (status, 200)
    assert overridden.content == plain.content
    for name, value in plain.headers.items():
        if name != "date" and not name.endswith("-request-id"):
            assert overridden.headers[name] == value
    assert overridden.headers["x-stack-actual-status"] == overridden.headers["x-hexclave-actual-status"] == str(status)


def test_unauthorized_and_wrong_method_are_overridden_too(wire: Wire) -> None:
    """All of 4xx."""
    unauthorized = wire.post(POLL, headers=wire.headers(secret_server_key="wrong") | OVERRIDE)
    assert (unauthorized.status_code, unauthorized.headers["x-hexclave-actual-status"]) == (200, "401")
    wrong_method = wire.client.get("/api/v1/auth/cli", headers=OVERRIDE)
    assert (wrong_method.status_code, wrong_method.headers["x-hexclave-actual-status"]) == (200, "405")


def test_success_is_not_touched_by_the_override(wire: Wire) -> None:
    """A 201 stays one."""
    login = wire.completed()
    response = wire.poll(login, **OVERRIDE)
    assert (response.status_code, response.headers["x-stack-actual-status"]) == (201, "201")


def test_connection_lives_on_after_a_refusal(wire: Wire) -> None:
    """A client that keeps its connection never finds it closed, however much of its request was not read."""
    wrong = wire.headers(secret_server_key="wrong")
    with httpx.Client(base_url=wire.service.url, trust_env=False) as client:
        for _ in range(20):
            for path, size in ((f"/api/v1{POLL}", 60_000), (f"/api/v1{POLL}", 200_000), ("/nowhere", 60_000)):
                response = client.post(path, headers=wrong, content=(b"x" * 4_000 for _ in range(size // 4_000)))
                assert response.status_code in {401, 404, 413}


def test_body_that_never_comes_is_the_client_s_fault(wire: Wire) -> None:
    """A client that stops in the middle of its body, if it still reads, gets 400."""
    address = urlsplit(wire.service.url)
    with socket.create_connection((address.hostname, address.port or 80)) as connection:
        keys = "".join(f"{name}: {value}\r\n" for name, value in wire.client_headers.items())
        head = f"POST /api/v1/auth/cli HTTP/1.1\r\nHost: relay\r\n{keys}Content-Length: 100\r\n\r\n"
        connection.sendall(head.encode() + b"{")
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"BODY_PARSING_ERROR" in answer


def test_503_without_a_worker_says_whether_the_request_is_recorded(start_wire: StartWire) -> None:
    """First it is recorded; once the backlog is full, it is not. Never as 200, even on request (docs/wire.md 5)."""
    wire = start_wire(workers=0, outcome_wait_ms=2_600, backlog_limit=1)
    first, second = wire.initiate(), wire.initiate()
    assert unavailable(wire.complete(first, OVERRIDE | {"Idempotency-Key": "first"}), RECORDED)
    assert unavailable(wire.complete(second, OVERRIDE), BUSY)
    assert wire.poll(first).json() == {"status": "waiting"}
    wire.service.start_worker()
    wire.service.wait_until_ready()
    assert wire.complete(first, {"Idempotency-Key": "first"}).json() == {}
    assert wire.complete(second).json() == {}


def test_503_without_redis_on_every_endpoint(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The process lives on, is not ready, and serves again once Redis is back."""
    redis = embedded_server(tmp_path)
    redis.start()
    with services(RedisServer(f"redis://127.0.0.1:{redis.port}/0", tmp_path), tmp_path_factory) as start_service:
        wire = Wire(start_service())
        with wire.client:
            login = wire.initiate()
            redis.stop()
            assert unavailable(wire.post(INITIATE, headers=wire.server_headers | OVERRIDE), STORE_AWAY)
            assert unavailable(wire.poll(login), STORE_AWAY)
            assert unavailable(wire.complete(login), STORE_AWAY)
            assert unavailable(wire.client.get("/health/ready"), STORE_AWAY)
            assert wire.client.get("/health/live").json() == {"status": "live"}
            redis.start()
            assert wire.poll(login).json() == {"status": "waiting"}
            assert wire.complete(login).json() == {}
