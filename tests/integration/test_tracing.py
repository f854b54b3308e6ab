import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import httpx
import msgspec
import pytest
from litestar import Litestar
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis.asyncio import Redis

from api.app import create_app
from projects.oauth import OAuth
from projects.project import KeyKind
from projects.store import Projects
from runtime.errors import SettingError
from runtime.redis.keys import Keys
from runtime.settings import Settings
from runtime.tracing import Tracing, check_tracing
from statemachine.commands import decode_command
from tests.support.oauth_services import oauth_settings
from tests.support.oauth_wire import DEVICE_CODE_GRANT, PAGE
from worker.app import work

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
TRACEPARENT = f"00-{TRACE:032x}-{SPAN:016x}-01"
CLI = "/api/v1/auth/cli"


class Client:
    """A tool and a backend of one project, in this process."""

    def __init__(self, http: httpx.AsyncClient, project_id: str, keys: dict[KeyKind, str]) -> None:
        self._http = http
        self._tool = {"x-stack-publishable-client-key": keys[KeyKind.PUBLISHABLE_CLIENT]}
        self._backend = {"x-stack-secret-server-key": keys[KeyKind.SECRET_SERVER]}
        self._project = {"x-stack-project-id": project_id}

    async def log_in(self, headers: dict[str, str]) -> None:
        """Do a whole login."""
        started = (await self._post("", self._tool | headers, {})).json()
        await self._post("/complete", self._backend | headers, {"login_code": started["login_code"]})
        last = await self._post("/poll", self._tool | headers, {"polling_code": started["polling_code"]})
        assert last.status_code == 201

    async def _post(self, path: str, headers: dict[str, str], body: dict[str, str]) -> httpx.Response:
        response = await self._http.post(f"http://relay{CLI}{path}", headers=self._project | headers, json=body)
        return response.raise_for_status()

    async def refresh_and_revoke(self, headers: dict[str, str]) -> None:
        """Log in as an OAuth client, replace the refresh token, and give it up."""
        started = (await self._send("device_authorization", {}, {})).json()
        approved = {"login_code": started["user_code"], "subject": "ada"}
        await self._post("/complete", self._backend, approved)
        grant = {"grant_type": DEVICE_CODE_GRANT, "device_code": started["device_code"]}
        tokens = (await self._send("token", {}, grant)).json()
        refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        tokens = (await self._send("token", headers, refresh)).json()
        await self._send("revoke", headers, {"token": tokens["refresh_token"]})

    async def _send(self, endpoint: str, headers: dict[str, str], form: dict[str, str]) -> httpx.Response:
        named = {"client_id": self._project["x-stack-project-id"], **form}
        response = await self._http.post(f"http://relay/oauth/{endpoint}", headers=headers, data=named)
        return response.raise_for_status()


@contextlib.asynccontextmanager
async def deployment(settings: Settings, projects: Projects, tracing: Tracing | None) -> AsyncIterator[Client]:
    """An API and a worker in this loop, over a real Redis."""
    oauth = OAuth(is_on=True, verification_uri=PAGE)
    project_id, keys = await projects.create("traced", allow_client_complete=False, oauth=oauth)
    app = create_app(settings, tracing)
    stopping = asyncio.Event()
    worker = asyncio.create_task(work(settings, stopping, tracing))
    async with app.lifespan(), httpx.AsyncClient(transport=transport(app)) as http:
        yield Client(http, project_id, keys)
        stopping.set()
        await worker


def transport(app: Litestar) -> httpx.ASGITransport:
    """Return what carries requests to an application in this process."""
    return httpx.ASGITransport(app)  # type: ignore[arg-type] # Litestar types ASGI's messages, httpx does not


def parent_of(span: ReadableSpan) -> int | None:
    """Return the id of a span's parent."""
    return span.parent.span_id if span.parent else None


def attribute(span: ReadableSpan, name: str) -> object:
    """Return one of a span's attributes."""
    return (span.attributes or {}).get(f"login_relay.{name}")


async def spans_of(
    do: Callable[[Client, dict[str, str]], Awaitable[None]],
    settings: Settings,
    projects: Projects,
    headers: dict[str, str],
) -> list[ReadableSpan]:
    """Return the spans that a login leaves, of both processes."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with deployment(settings, projects, Tracing(provider)) as client:
        await do(client, headers)
    return list(exporter.get_finished_spans())


spans_of_a_login = partial(spans_of, Client.log_in)


async def test_a_login_is_one_connected_trace(settings: Settings, projects: Projects) -> None:
    """Requests are in their caller's trace, commands below requests; batches link to requests, commands to batches."""
    spans = await spans_of_a_login(settings, projects, {"traceparent": TRACEPARENT})
    by_name = {span.name: span for span in spans}
    batches = [span for span in spans if span.name == "batch"]
    requests = {"CompleteSession": f"POST {CLI}/complete", "ConsumeSession": f"POST {CLI}/poll"}
    assert by_name.keys() == {"batch", f"POST {CLI}", *requests, *requests.values()}

    in_trace = [span for span in spans if span not in batches]
    assert {span.context.trace_id for span in in_trace} == {TRACE}
    for request in (f"POST {CLI}", *requests.values()):
        assert parent_of(by_name[request]) == SPAN
    for command, request in requests.items():
        assert parent_of(by_name[command]) == by_name[request].context.span_id

    # Two commands, two batches: the trace is whole across them.
    assert len(batches) == 2
    linked_from = {link.context.span_id for batch in batches for link in batch.links}
    assert linked_from == {by_name[request].context.span_id for request in requests.values()}
    linked_to = [link.context.span_id for command in requests for link in by_name[command].links]
    assert set(linked_to) == {batch.context.span_id for batch in batches}

    session_ids = {attribute(span, "session_id") for span in in_trace}
    assert len(session_ids) == 1
    assert attribute(by_name["CompleteSession"], "outcome") == "completed"
    assert attribute(by_name["ConsumeSession"], "state") == "consumed"
    assert (by_name[f"POST {CLI}/poll"].attributes or {})["http.response.status_code"] == 201
    [event] = by_name[f"POST {CLI}/poll"].events
    assert event.attributes == {"login_relay.outcome": "consumed"}


async def test_commands_for_tokens_are_in_the_trace_of_their_request(
    settings: Settings, projects: Projects, tmp_path: Path
) -> None:
    """A refresh and a revocation, each below its request, linked with its batch, with what became of it."""
    settings = msgspec.convert(msgspec.to_builtins(settings) | oauth_settings(tmp_path), Settings)
    spans = await spans_of(Client.refresh_and_revoke, settings, projects, {"traceparent": TRACEPARENT})
    by_name = {span.name: span for span in spans if span.context.trace_id == TRACE}
    batches = {span.context.span_id for span in spans if span.name == "batch"}
    for command, request in (("RefreshFamily", "POST /oauth/token"), ("RevokeFamily", "POST /oauth/revoke")):
        assert parent_of(by_name[command]) == by_name[request].context.span_id
        assert {link.context.span_id for link in by_name[command].links} < batches
        assert attribute(by_name[command], "session_id") == attribute(by_name[request], "session_id")
    refreshed, revoked = by_name["RefreshFamily"], by_name["RevokeFamily"]
    assert (attribute(refreshed, "outcome"), attribute(refreshed, "commit")) == ("rotated", "committed")
    assert (attribute(revoked, "outcome"), attribute(revoked, "state")) == ("revoked", "revoked")


async def test_a_request_without_a_trace_begins_one(settings: Settings, projects: Projects) -> None:
    """A malformed header counts as absent; the command continues its request's trace."""
    spans = await spans_of_a_login(settings, projects, {"traceparent": "00-not-a-trace"})
    by_name = {span.name: span for span in spans}
    assert parent_of(by_name[f"POST {CLI}/complete"]) is None
    assert by_name["CompleteSession"].context.trace_id == by_name[f"POST {CLI}/complete"].context.trace_id


async def test_a_trace_that_its_caller_does_not_sample_leaves_nothing(settings: Settings, projects: Projects) -> None:
    """The caller's decision also holds for the worker and its batch."""
    assert not await spans_of_a_login(settings, projects, {"traceparent": TRACEPARENT[:-1] + "0"})


async def test_without_tracing_a_command_names_its_request_and_no_trace(
    settings: Settings, projects: Projects, redis: Redis, keys: Keys
) -> None:
    """A caller's `traceparent` is not passed on by a relay that does not trace."""
    settings = msgspec.structs.replace(settings, outcome_wait_ms=50)
    project_id, made = await projects.create("untraced", allow_client_complete=False)
    app = create_app(settings)
    async with app.lifespan(), httpx.AsyncClient(transport=transport(app)) as http:
        client = Client(http, project_id, made)
        with pytest.raises(httpx.HTTPStatusError):  # no worker answers in time
            await client.log_in({"traceparent": TRACEPARENT, "x-request-id": "asked-by-me"})
    [(_, fields)] = await redis.execute_command("XRANGE", keys.commands(0), "-", "+")
    command = decode_command(fields[b"command"])
    assert (command.request_id, command.traceparent) == ("asked-by-me", None)


def test_nothing_asks_for_opentelemetry_when_it_is_off() -> None:
    """Without the extra, a process can import all that it needs."""
    start = "import sys; sys.modules['opentelemetry'] = None; import api.app, api.__main__, worker.__main__"
    subprocess.run([sys.executable, "-c", start], check=True)


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_traces_are_on_when_a_collector_is_named(name: str) -> None:
    """By OpenTelemetry's own variables; an empty one counts as unset."""
    assert check_tracing({name: "http://127.0.0.1:4318"})
    assert not check_tracing({name: ""})
    assert not check_tracing({})


def test_traces_without_opentelemetry_are_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the variable and the extra."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT.*extra `otel`"):
        check_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
