from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from signal import Signals
from threading import Thread

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.redis_server import free_port
from tests.support.services import StartService

CLI = "/api/v1/auth/cli"
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Collector(ThreadingHTTPServer):
    """Receives traces as OTLP over HTTP, as a real collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[tuple[str, str, str]] = []
        """Service, trace id and name of each span."""


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            [service] = [item.value.string_value for item in resource.resource.attributes if item.key == "service.name"]
            for scope in resource.scope_spans:
                self.server.spans += [(service, span.trace_id.hex(), span.name) for span in scope.spans]
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that the processes of this test send to."""
    with Collector() as collector:
        Thread(target=collector.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_address[1]}")
        yield collector
        collector.shutdown()


async def test_processes_send_one_trace_of_a_login(collector: Collector, start_service: StartService) -> None:
    """API and worker each send their spans, the last ones when they stop; all have one trace id."""
    service = start_service()
    client, server = service.project.client_headers, service.project.server_headers
    traced = {"traceparent": TRACEPARENT}
    async with httpx.AsyncClient(base_url=f"{service.url}{CLI}", trust_env=False) as http:
        started = (await http.post("", headers=client | traced)).json()
        await http.post("/complete", headers=server | traced, json={"login_code": started["login_code"]})
        last = await http.post("/poll", headers=client | traced, json={"polling_code": started["polling_code"]})
        assert last.status_code == 201
    for process in service.processes:
        process.send(Signals.SIGTERM)
        assert process.wait() == 0
    in_trace = {(service_name, name) for service_name, trace, name in collector.spans if trace == TRACE}
    assert in_trace == {
        ("login-relay-api", f"POST {CLI}"),
        ("login-relay-api", f"POST {CLI}/complete"),
        ("login-relay-api", f"POST {CLI}/poll"),
        ("login-relay-worker", "CompleteSession"),
        ("login-relay-worker", "ConsumeSession"),
    }


async def test_a_collector_that_is_away_costs_no_login_and_no_grace(
    monkeypatch: pytest.MonkeyPatch, start_service: StartService
) -> None:
    """Logins go on, and the processes end cleanly within seconds."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    service = start_service()
    client, server = service.project.client_headers, service.project.server_headers
    async with httpx.AsyncClient(base_url=f"{service.url}{CLI}", trust_env=False) as http:
        started = (await http.post("", headers=client)).json()
        complete = await http.post("/complete", headers=server, json={"login_code": started["login_code"]})
        assert complete.status_code == 200
    for process in service.processes:
        process.send(Signals.SIGTERM)
    for process in service.processes:
        assert process.wait(within=8) == 0
        assert "Traceback" not in process.output
