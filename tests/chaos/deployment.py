"""The processes under attack: one Valkey with an append-only file, API processes and workers, all of this run's own.

Everything reaches Redis through one proxy, and each API process is reached through another.
"""

import asyncio
import os
import time
from pathlib import Path
from signal import SIGCONT, SIGTERM

from projects.project import Policy
from runtime.redis.keys import Keys
from runtime.settings import Settings, variable
from tests.support.eventually import wait_until
from tests.support.oauth_services import OPEN
from tests.support.proxy import Proxy
from tests.support.redis_process import RedisProcess
from tests.support.redis_server import free_port
from tests.support.services import API, WORKER, Process, ProjectKeys, create_project

PATIENCE = 30.0  # seconds for a process to be there
SHORT_LIVED = Policy(longest_lifetime_ms=15_000)
"""OAuth clients do not say for how long a login lives, and at the end of a run all must be over."""


class Deployment:
    """API processes and workers over one Redis."""

    def __init__(self, redis: RedisProcess, proxy: Proxy, settings: Settings, folder: Path) -> None:
        self.redis = redis
        self.proxy = proxy
        self.settings = settings
        self.keys = Keys(settings.prefix, settings.partitions)
        self.project: ProjectKeys
        self.apis: list[Process] = []
        """The running ones; each behind the proxy at the same index in `fronts`."""
        self.fronts: list[Proxy] = []
        self.workers: list[Process] = []
        """The running ones, including frozen ones."""
        self.folder = folder
        self._ports: list[int] = []
        self._started: list[Process] = []
        defaults = Settings()
        self._environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ} | {
            variable(field): str(value)
            for field in Settings.__struct_fields__
            if (value := getattr(settings, field)) != getattr(defaults, field)
        }

    async def start(self, apis: int, workers: int) -> None:
        """Create a project, start the processes and return when they serve."""
        self.project = await create_project(self.settings, "chaos", policy=SHORT_LIVED, oauth=OPEN)
        for _ in range(apis):
            front = Proxy(0)
            await front.start()
            self.fronts.append(front)
            self._ports.append(free_port())
            self.apis.append(self._start("api", (*API, "--port", str(self._ports[-1]))))
        for _ in range(workers):
            self.start_worker()
        for place in range(apis):
            await self.until_api_serves(place)
        await wait_until(lambda: all("worker started" in worker.output for worker in self.workers), within=PATIENCE)

    def start_worker(self) -> None:
        """Start one more worker."""
        self.workers.append(self._start("worker", WORKER))

    def kill_worker(self, worker: Process) -> None:
        """End a worker as kill -9 does, and start one more in its place."""
        self.workers.remove(worker)
        worker.end()
        self.start_worker()

    def kill_api(self, place: int) -> None:
        """End an API, all its processes, as kill -9 does, and start one more in its place."""
        self.apis[place].end()
        self.fronts[place].target_port = 0  # as a load balancer does with an API that is not ready
        self._ports[place] = free_port()
        self.apis[place] = self._start("api", (*API, "--port", str(self._ports[place])))

    async def until_api_serves(self, place: int) -> None:
        """Return when the API at this index is ready; only then its clients can reach it."""

        async def is_ready() -> int:
            assert self.apis[place].is_running, self.apis[place].output
            port = self._ports[place]
            return port if await _is_ready(port) else 0

        self.fronts[place].target_port = await wait_until(is_ready, within=PATIENCE)

    async def consumer_of(self, worker: Process) -> str | None:
        """Return the name of a worker's consumer: `host:pid:…`."""
        names = [row["name"].decode() for row in await self._xinfo_consumers()]
        return next((name for name in names if name.split(":")[-2] == str(worker.pid)), None)

    async def _xinfo_consumers(self) -> list[dict[str, bytes]]:
        rows: list[dict[str, bytes]] = await self.redis.client.xinfo_consumers(self.keys.commands(0), "workers")
        return rows

    async def stop(self) -> list[int]:
        """Send SIGTERM to all; returns their exit codes."""
        processes = [*self.apis, *self.workers]
        for process in processes:
            process.send(SIGCONT)
            process.send(SIGTERM)
        return [await asyncio.to_thread(process.wait) for process in processes]

    async def end(self) -> None:
        """End everything that was started."""
        for process in (*self.apis, *self.workers):
            process.end()
        for front in self.fronts:
            await front.close()

    def logs(self) -> str:
        """Return the output of all processes, including killed ones."""
        return "".join(process.output for process in self._started)

    def _start(self, name: str, command: tuple[str, ...]) -> Process:
        log = self.folder / f"{name}-{len(self._started)}-{time.monotonic_ns()}.log"
        process = Process(command, self._environment, log)
        self._started.append(process)
        return process


async def _is_ready(port: int) -> bool:
    """Return whether an API answers that it is ready."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /health/ready HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except OSError:  # a TimeoutError is one
        return False
