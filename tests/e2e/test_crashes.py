import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from signal import SIGCONT, SIGKILL, SIGTERM
from typing import NamedTuple

import httpx
import pytest
from redis.asyncio import Redis

from runtime.redis.connections import command_client
from tests.support.eventually import wait_until
from tests.support.services import Process, Service, StartService

# Times short enough for a test and in the order that start-up demands; where the defaults matter, they are used.
SHORT = {"min_idle_ms": 400, "reclaim_period_ms": 100, "outcome_wait_ms": 1_500}
LOGINS = 40  # under way at a time, where there is load


class Session(NamedTuple):
    """The answer to initiate that a tool got."""

    session_id: str
    login_code: str
    polling_code: str


class Client:
    """A tool and a backend of one service, and a view of its Redis."""

    def __init__(self, service: Service, http: httpx.AsyncClient, redis: Redis) -> None:
        self.service = service
        self.http = http
        self.redis = redis

    async def post(self, path: str, body: dict[str, str], key: str | None = None, api: int = 0) -> httpx.Response:
        """Send a request, as the backend or as the tool."""
        project = self.service.project
        headers = project.server_headers if path == "/complete" else project.client_headers
        if key is not None:
            headers["idempotency-key"] = key
        return await self.http.post(f"{self.service.urls[api]}/api/v1/auth/cli{path}", headers=headers, json=body)

    async def initiate(self, api: int = 0) -> Session:
        """Start a session."""
        found = (await self.post("", {}, api=api)).json()
        return Session(found["session_id"], found["login_code"], found["polling_code"])

    async def complete(self, session: Session, key: str | None = None, api: int = 0) -> httpx.Response:
        """Complete it with a token that names it."""
        body = {"login_code": session.login_code, "refresh_token": f"rt-{session.session_id}"}
        return await self.post("/complete", body, key, api)

    async def surely_complete(self, session: Session, key: str, api: int = 0) -> httpx.Response:
        """Complete it, and send the same request again after a 503."""
        while (response := await self.complete(session, key, api)).status_code == 503:
            assert response.headers["retry-after"] == "1"
        return response

    async def poll(self, session: Session, key: str | None = None, api: int = 0) -> httpx.Response:
        """Poll it."""
        return await self.post("/poll", {"polling_code": session.polling_code}, key, api)

    async def receives_its_token(self, session: Session, api: int = 0) -> None:
        """Return whether the next poll that is not answered `waiting` gets the token, and the one after it does not."""
        while (response := await self.poll(session, api=api)).json() == {"status": "waiting"}:
            assert response.status_code == 200  # no worker in time: nothing was consumed, so the next poll may
        assert response.json() == {"status": "success", "refresh_token": f"rt-{session.session_id}"}
        assert response.status_code == 201
        assert (await self.poll(session, api=api)).json() == {"status": "used"}

    async def backlog(self) -> int:
        """Return how many commands are undecided."""
        return int(await self.redis.xlen(self.service.keys.commands(0)))

    async def facts(self, session: Session) -> list[tuple[str, int]]:
        """Return the types and versions of a session's events."""
        entries = await self.redis.execute_command("XRANGE", self.service.keys.events(0), "-", "+")
        return [
            (fields[b"type"].decode(), int(fields[b"version"]))
            for _, fields in entries
            if fields[b"subject"] == session.session_id.encode()
        ]

    async def completing(self, session: Session, key: str | None = None) -> "asyncio.Task[httpx.Response]":
        """Send a completion to a service whose workers are stopped; return when it is recorded."""
        before = await self.backlog()
        answer = asyncio.create_task(self.complete(session, key))

        async def is_recorded() -> bool:
            return await self.backlog() > before

        await wait_until(is_recorded)
        return answer


StartClient = Callable[..., Awaitable[Client]]

INITIATED, COMPLETED, CONSUMED = ("session.initiated", 1), ("session.completed", 2), ("session.consumed", 3)


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client that waits longer than any request may take."""
    async with httpx.AsyncClient(timeout=20, trust_env=False) as client:
        yield client


@pytest.fixture
async def start(start_service: StartService, http: httpx.AsyncClient) -> AsyncIterator[StartClient]:
    """Start a service, and return the clients of it."""
    async with contextlib.AsyncExitStack() as stack:

        async def start_client(**given: int) -> Client:
            service = start_service(**given)
            redis = await stack.enter_async_context(command_client(service.settings, "login-relay:test"))
            return Client(service, http, redis)

        yield start_client


async def has_ended(process: Process) -> int:
    """Wait for a process's end without blocking the loop; returns its exit code."""
    return await asyncio.to_thread(process.wait)


async def test_complete_gets_its_200_when_the_worker_is_killed_before_it_commits(start: StartClient) -> None:
    """Another worker takes over the entry while the request still waits, with the default settings."""
    client = await start()
    service = client.service
    session = await client.initiate()
    service.workers[0].stop()
    answer = await client.completing(session, key="k")
    sent = time.monotonic()
    service.workers[0].send(SIGKILL)
    service.start_worker()
    response = await answer
    if response.status_code == 503:  # only where a worker takes seconds to start
        assert time.monotonic() - sent > 5
        response = await client.surely_complete(session, key="k")
    assert (response.status_code, response.json()) == (200, {"success": True})
    assert await client.facts(session) == [INITIATED, COMPLETED]
    await client.receives_its_token(session)
    assert await client.facts(session) == [INITIATED, COMPLETED, CONSUMED]


async def test_complete_without_any_worker_is_recorded_and_its_retry_gets_200(start: StartClient) -> None:
    """After the wait it gets a 503 with Retry-After; the same Idempotency-Key then gets the outcome."""
    client = await start(**SHORT)
    service = client.service
    session = await client.initiate()
    service.workers[0].stop()
    answer = await client.completing(session, key="k")
    service.workers[0].send(SIGKILL)
    refused = await answer
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "recorded" in refused.text
    assert (await client.poll(session)).json() == {"status": "waiting"}
    service.start_worker()
    retried = [await client.surely_complete(session, key="k") for _ in range(2)]
    assert [response.status_code for response in retried] == [200, 200]
    assert (await client.complete(session, key="other")).status_code == 400
    assert await client.facts(session) == [INITIATED, COMPLETED]
    await client.receives_its_token(session)


async def test_worker_that_wakes_after_its_entry_was_taken_over_changes_nothing(start: StartClient) -> None:
    """It finds its entry decided, leaves session and outcome alone, and continues to work."""
    client = await start(**SHORT)
    service = client.service
    session = await client.initiate()
    service.workers[0].stop()
    answer = await client.completing(session, key="k")
    heir = service.start_worker()
    assert (await answer).status_code in {200, 503}
    assert (await client.surely_complete(session, key="k")).status_code == 200
    await client.receives_its_token(session)
    heir.send(SIGTERM)
    assert await has_ended(heir) == 0
    service.workers[0].send(SIGCONT)
    # The worker that woke works again, alone: entries in hand come before new ones.
    another = await client.initiate()
    assert (await client.surely_complete(another, key="another")).status_code == 200
    assert (await client.complete(session, key="k")).status_code == 200
    assert await client.facts(session) == [INITIATED, COMPLETED, CONSUMED]
    assert service.workers[0].is_running


async def test_poll_that_no_worker_served_leaves_the_token_for_the_next(start: StartClient) -> None:
    """A poll that was answered `waiting` has consumed nothing, whenever its command is decided."""
    client = await start(**SHORT)
    service = client.service
    session = await client.initiate()
    assert (await client.surely_complete(session, key="k")).status_code == 200
    service.workers[0].stop()
    assert (await client.poll(session)).json() == {"status": "waiting"}
    service.workers[0].send(SIGCONT)
    await client.receives_its_token(session)
    assert await client.facts(session) == [INITIATED, COMPLETED, CONSUMED]


async def test_api_killed_before_it_answered_costs_a_retry(start: StartClient) -> None:
    """The command was recorded; another API returns its outcome to a retry with the Idempotency-Key."""
    client = await start(apis=2, **SHORT)
    service = client.service
    session = await client.initiate()
    service.workers[0].stop()
    answer = await client.completing(session, key="k")
    service.apis[0].send_to_group(SIGKILL)
    with pytest.raises(httpx.TransportError):
        await answer
    service.workers[0].send(SIGCONT)
    assert (await client.surely_complete(session, key="k", api=1)).status_code == 200
    assert await client.facts(session) == [INITIATED, COMPLETED]
    await client.receives_its_token(session, api=1)


async def test_stopped_api_answers_what_it_has_begun(start: StartClient, http: httpx.AsyncClient) -> None:
    """SIGTERM: the request in flight gets its answer, then the process ends, within its grace and with exit code 0."""
    client = await start()
    service = client.service
    session = await client.initiate()
    service.workers[0].stop()
    answer = await client.completing(session)
    service.apis[0].send(SIGTERM)
    with pytest.raises(httpx.TransportError):  # noqa: PT012 - it listens until it begins to stop
        while True:
            await http.get(f"{service.url}/health/live", headers={"connection": "close"})
    service.workers[0].send(SIGCONT)
    assert (await answer).status_code == 200
    started = time.monotonic()
    assert await has_ended(service.apis[0]) == 0
    assert time.monotonic() - started < service.settings.shutdown_grace_ms / 1000


async def test_workers_that_are_stopped_under_load_lose_nothing(start: StartClient) -> None:
    """SIGTERM, one after the other, under load: every login succeeds once; each process ends within its grace."""
    client = await start(workers=3)
    service = client.service
    sessions: list[Session] = []
    stopped = asyncio.Event()

    async def log_in() -> None:
        while not stopped.is_set():
            session = await client.initiate()
            assert (await client.complete(session)).status_code == 200
            await client.receives_its_token(session)
            sessions.append(session)

    def has_logged_in(times: int) -> bool:
        return len(sessions) >= times

    async def stop_workers() -> None:
        for worker in service.workers[:2]:
            done = len(sessions) + LOGINS
            await wait_until(partial(has_logged_in, done), within=20)
            started = time.monotonic()
            worker.send(SIGTERM)
            assert await has_ended(worker) == 0
            assert time.monotonic() - started < service.settings.shutdown_grace_ms / 1000
            assert "worker stopped" in worker.output
        stopped.set()

    await asyncio.gather(stop_workers(), *(log_in() for _ in range(LOGINS)))
    assert await client.backlog() == 0
    for session in sessions[:: len(sessions) // 20]:
        assert await client.facts(session) == [INITIATED, COMPLETED, CONSUMED]
