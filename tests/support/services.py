"""Whole services of real processes: API and workers, started as operators start them."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from signal import Signals
from typing import NamedTuple

import httpx
import msgspec
import pytest

from projects.oauth import NO_OAUTH, OAuth
from projects.project import DEFAULT_POLICY, KeyKind, Policy
from projects.store import Projects
from runtime.redis.connections import command_client
from runtime.redis.keys import Keys
from runtime.settings import Settings, variable
from tests.support.redis_server import RedisServer, free_port, remove_keys

PASSED_ON = ("PATH", "PYTHONPATH", "HOME", "LANG", "OTEL_EXPORTER_OTLP_ENDPOINT", "LITESTAR_DEBUG", "LITESTAR_PDB")
STARTUP = 30.0  # seconds; a process starts in two, on a busy machine in more
SHUTDOWN = 15.0  # seconds; more than the grace of the processes themselves
COMMAND = str(Path(sys.executable).with_name("login-relay"))
API = (COMMAND, "api")
WORKER = (COMMAND, "worker")


class Process:
    """A process of ours, with its output."""

    def __init__(self, command: tuple[str, ...], environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            # A group of its own, so that the processes it starts can be ended with it.
            self._popen = subprocess.Popen(
                command,
                env=environment,
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def output(self) -> str:
        """What it wrote to both its streams so far."""
        return self.log.read_text()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def send(self, number: Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def stop(self) -> None:
        """Send SIGSTOP: it stops, with its connections open, until SIGCONT; returns when it has stopped."""
        self.send(Signals.SIGSTOP)
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def send_to_group(self, number: Signals) -> None:
        """Send a signal to it and to the processes that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def wait(self, within: float = SHUTDOWN) -> int:
        """Wait for its end; returns its exit code (negative: the signal that ended it)."""
        return self._popen.wait(within)

    def end(self) -> None:
        """End it and what it started, now."""
        self.send_to_group(Signals.SIGKILL)
        self._popen.wait()


class ProjectKeys(NamedTuple):
    """A project with its keys, as shown to its owner once."""

    project_id: str
    publishable_client_key: str
    secret_server_key: str
    super_secret_admin_key: str

    @property
    def client_headers(self) -> dict[str, str]:
        """What a tool sends."""
        return {"x-stack-project-id": self.project_id, "x-stack-publishable-client-key": self.publishable_client_key}

    @property
    def server_headers(self) -> dict[str, str]:
        """What a backend sends."""
        return {"x-stack-project-id": self.project_id, "x-stack-secret-server-key": self.secret_server_key}


class Service:
    """API processes and workers over one prefix of one Redis."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.keys = Keys(settings.prefix, settings.partitions)
        with ThreadPoolExecutor(1) as thread:  # the test may have a loop running
            self.project = thread.submit(asyncio.run, create_project(settings, "e2e")).result()
        self.apis: list[Process] = []
        self.urls: list[str] = []
        self.workers: list[Process] = []
        self._folder = folder
        defaults = Settings()
        self._environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {
            variable(field): str(value)
            for field in Settings.__struct_fields__
            if (value := getattr(settings, field)) != getattr(defaults, field)
        }

    @property
    def url(self) -> str:
        """The address of the first API."""
        return self.urls[0]

    @property
    def processes(self) -> list[Process]:
        """All processes that were started, including ended ones."""
        return [*self.apis, *self.workers]

    @property
    def output(self) -> str:
        """What all processes wrote so far."""
        return "".join(process.output for process in self.processes)

    def start_api(self, *options: str, **environment: str) -> Process:
        """Start one more API, with options and variables of its own; it may not listen yet."""
        return self.start_api_at(free_port(), *options, **environment)

    def start_api_at(self, port: int, *options: str, **environment: str) -> Process:
        """Start one more API, at this port."""
        process = self._start("api", (*API, "--port", str(port), *options), self.apis, environment)
        self.urls.append(f"http://127.0.0.1:{port}")
        return process

    def start_worker(self, **environment: str) -> Process:
        """Start one more worker, with variables of its own; it may not read yet."""
        return self._start("worker", WORKER, self.workers, environment)

    def start_modules(self) -> tuple[Process, Process]:
        """Start one more API and one more worker as `python -m …`, by environment variables alone."""
        port = free_port()
        environment = {variable("port"): str(port)}
        api = self._start("api", (sys.executable, "-m", "api"), self.apis, environment)
        self.urls.append(f"http://127.0.0.1:{port}")
        return api, self._start("worker", (sys.executable, "-m", "worker"), self.workers, {})

    def wait_until_ready(self) -> None:
        """Return when every API is ready and every worker at work."""
        until = time.monotonic() + STARTUP
        for process, url in zip(self.apis, self.urls, strict=True):
            _wait(partial(_is_ready, url), process, until)
        for process in self.workers:
            if process.is_running:
                _wait(partial(_has_started, process), process, until)

    def end(self) -> None:
        """End all processes."""
        for process in self.processes:
            process.end()

    def _start(
        self, name: str, command: tuple[str, ...], processes: list[Process], environment: dict[str, str]
    ) -> Process:
        process = Process(command, self._environment | environment, self._folder / f"{name}-{len(processes)}.log")
        processes.append(process)
        return process


StartService = Callable[..., Service]


async def create_project(
    settings: Settings,
    name: str,
    *,
    allow_client_complete: bool = False,
    policy: Policy = DEFAULT_POLICY,
    oauth: OAuth = NO_OAUTH,
    allowed_origins: Collection[str] = (),
) -> ProjectKeys:
    """Create a project, as `login-relay projects create` does."""
    redis = command_client(settings, "login-relay:test")
    try:
        projects = Projects(redis, Keys(settings.prefix, settings.partitions))
        project_id, made = await projects.create(
            name,
            allow_client_complete=allow_client_complete,
            allowed_origins=allowed_origins,
            policy=policy,
            oauth=oauth,
        )
    finally:
        await redis.aclose()
    return ProjectKeys(project_id, *(made[kind] for kind in KeyKind))


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=1.0, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _has_started(worker: Process) -> bool:
    return "worker started" in worker.output


def _wait(predicate: Callable[[], bool], process: Process, until: float) -> None:
    while not predicate():
        assert process.is_running, f"{process.log.name}: ended at start: {process.output}"
        assert time.monotonic() < until, f"{process.log.name}: not ready in time: {process.output}"
        time.sleep(0.02)


@contextlib.contextmanager
def services(server: RedisServer, factory: pytest.TempPathFactory) -> Iterator[StartService]:
    """Yield a function that starts services on a server; they all end with the context."""
    running: list[Service] = []

    def start_service(*, apis: int = 1, workers: int = 1, **settings: object) -> Service:
        given = {"redis_url": server.url, "prefix": f"e2e-{uuid.uuid4().hex[:12]}", **settings}
        service = Service(msgspec.convert(given, Settings), factory.mktemp("service"))
        running.append(service)
        for _ in range(apis):
            service.start_api()
        for _ in range(workers):
            service.start_worker()
        service.wait_until_ready()
        return service

    try:
        yield start_service
    finally:
        for service in running:
            service.end()
    leaked = [name for service in running for name in remove_keys(server, service.keys)]
    assert not leaked, f"keys without TTL: {leaked}"
