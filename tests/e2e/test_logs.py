import os
import pty
import re
import subprocess
from signal import Signals
from typing import Any

import httpx
import msgspec
import pytest

from tests.support.eventually import wait_until
from tests.support.redis_server import free_port
from tests.support.scraping import counted
from tests.support.services import API, Process, Service, StartService

CLI = "/api/v1/auth/cli"
HEADER_NAMES = ("x-stack-request-id", "x-hexclave-request-id", "x-request-id")


def lines(process: Process, event: str) -> list[dict[str, Any]]:
    """Return the lines of a process that log an event, parsed from JSON."""
    parsed = [msgspec.json.decode(line) for line in process.output.splitlines() if line.startswith("{")]
    return [line for line in parsed if line["event"] == event]


async def request_line(process: Process, request_id: str) -> dict[str, Any]:
    """Return the one line of a request."""
    await wait_until(lambda: any(line["request_id"] == request_id for line in lines(process, "request")))
    [line] = [line for line in lines(process, "request") if line["request_id"] == request_id]
    return line


async def test_a_login_can_be_followed_through_the_logs(start_service: StartService) -> None:
    """One line per request at INFO, one per transition at DEBUG; the request's id and the session's on each."""
    service = start_service(log_level="debug")
    api, worker = service.apis[0], service.workers[0]
    client, server = service.project.client_headers, service.project.server_headers
    async with httpx.AsyncClient(base_url=f"{service.url}{CLI}", trust_env=False) as http:
        started = (await http.post("", headers=client | {"x-request-id": "initiate:1"})).json()
        session_id, polling = started["session_id"], {"polling_code": started["polling_code"]}
        code = {"login_code": started["login_code"]}
        await http.post("/poll", headers=client | {"x-request-id": "poll:1"}, json=polling)
        await http.post("/complete", headers=server | {"x-request-id": "complete:1"}, json=code)
        await http.post("/poll", headers=client | {"x-request-id": "poll:2"}, json=polling)
        await http.get("/nowhere", headers={"x-request-id": "nowhere:1"})

    expected = {
        "initiate:1": (CLI, "POST", 200, session_id),
        "poll:1": (f"{CLI}/poll", "POST", 200, session_id),
        "complete:1": (f"{CLI}/complete", "POST", 200, session_id),
        "poll:2": (f"{CLI}/poll", "POST", 201, session_id),
        "nowhere:1": ("none", "GET", 404, None),
    }
    for request_id, facts in expected.items():
        line = await request_line(api, request_id)
        assert (line["route"], line["method"], line["status"], line.get("session_id")) == facts
        assert line["level"] == "info"
        assert 0 <= line["ms"] < 30_000
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])
    told = [(line["source"], line["target"], line["request_id"]) for line in lines(worker, "transition")]
    assert told == [("pending", "completed", "complete:1"), ("completed", "consumed", "poll:2")]
    assert {line["session_id"] for line in lines(worker, "transition")} == {session_id}
    assert {line["level"] for line in lines(worker, "transition")} == {"debug"}


async def test_a_status_that_is_overridden_is_logged_and_counted_as_it_is(start_service: StartService) -> None:
    """A client that has its 401 and 429 sent as 200 hides them from a proxy, and not from the relay's own records."""
    service = start_service(workers=0, initiations_per_project=1)
    api = service.apis[0]
    override = {"x-stack-override-error-status": "true"}
    client = service.project.client_headers | override
    wrong = client | {"x-stack-publishable-client-key": "pck_wrong"}
    statuses = {"wrong:1": (wrong, 401), "first:1": (client, 200), "second:1": (client, 429)}
    async with httpx.AsyncClient(base_url=service.url, trust_env=False) as http:
        for request_id, (headers, status) in statuses.items():
            response = await http.post(CLI, headers=headers | {"x-request-id": request_id})
            assert (response.status_code, response.headers["x-stack-actual-status"]) == (200, str(status))
            assert (await request_line(api, request_id))["status"] == status
            await counted(api, "http_request_duration_seconds_count", 1, route=CLI, status=str(status))


@pytest.mark.parametrize("name", HEADER_NAMES)
@pytest.mark.parametrize("given", ["x", "7f6a8a4e-52a1-4c6c-9d1f-0a8f3f1f6f52", "a" * 128, "~a.b_c:d/e+f=g@h-1"])
def test_a_request_keeps_the_id_it_came_with(service: Service, name: str, given: str) -> None:
    """Under each of the three header names; it is returned in both spellings."""
    response = httpx.get(f"{service.url}/health/live", headers={name: given}, trust_env=False)
    assert [response.headers[spelling] for spelling in HEADER_NAMES[:2]] == [given, given]


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"a" * 129,
        b"a b",
        b'a"b',
        b"a\\b",
        b"a;b",
        "ü".encode(),
        b"<a>",
        b"lrp_00",
        b"a-ssk_1",
        b"lrt_x",
    ],
)
def test_an_id_that_is_not_safe_to_log_is_replaced(service: Service, given: bytes) -> None:
    """Too long, not visible, special to a reader of logs, or like one of our codes or keys."""
    response = httpx.get(f"{service.url}/health/live", headers={b"x-request-id": given}, trust_env=False)
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-stack-request-id"])


async def test_requests_are_not_logged_at_a_higher_level(start_service: StartService) -> None:
    """At `warning` the log has warnings only; the metrics still count (`test_metrics`)."""
    service = start_service(log_level="warning", workers=0)
    async with httpx.AsyncClient(trust_env=False) as http:
        for _ in range(3):
            await http.get(f"{service.url}/health/live")
    service.apis[0].end()
    assert service.apis[0].output == ""


async def test_the_last_requests_are_logged_at_the_end(start_service: StartService) -> None:
    """Lines are written a moment after their request; a process that stops writes them first."""
    service = start_service(workers=0)
    async with httpx.AsyncClient(trust_env=False) as http:
        await http.get(f"{service.url}/health/live", headers={"x-request-id": "last"})
        service.apis[0].send(Signals.SIGTERM)
    assert service.apis[0].wait() == 0
    assert [line["status"] for line in lines(service.apis[0], "request") if line["request_id"] == "last"] == [200]


def test_lines_are_for_people_on_a_terminal(redis_url: str) -> None:
    """Without JSON, and with the same content."""
    port = free_port()
    leader, follower = pty.openpty()
    environment = {**os.environ, "LOGIN_RELAY_REDIS_URL": redis_url}
    with subprocess.Popen((*API, "--port", str(port)), env=environment, stdout=follower, stderr=follower) as process:
        try:
            seen = ""
            while "listening" not in seen:
                seen += os.read(leader, 4096).decode()
            with httpx.Client(transport=httpx.HTTPTransport(retries=20)) as http:
                http.get(f"http://127.0.0.1:{port}/health/live", headers={"x-request-id": "on-a-terminal"})
            while "on-a-terminal" not in seen:
                seen += os.read(leader, 4096).decode()
        finally:
            process.terminate()
            os.close(follower)
    text = re.sub(r"\x1b\[[0-9;]*m", "", seen)
    [line] = [line for line in text.splitlines() if "on-a-terminal" in line]
    assert "route=/health/live" in line
    assert "status=200" in line
    assert not line.startswith("{")
