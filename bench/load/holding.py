"""Many requests held at once, each on a connection of its own, and the memory that they take."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from bench.load.client import Connection
from bench.load.servers import Server

OPEN_AT_ONCE = 100
SETTLE = 3.0  # seconds for the last requests to be held


async def hold(
    stack: AsyncExitStack, server: Server, path: str, headers: Mapping[str, str], bodies: Sequence[Mapping[str, str]]
) -> float:
    """Send a request for each body, all held until the stack closes; return the server's resident KiB for each."""

    async def send(body: Mapping[str, str]) -> None:
        connection = await stack.enter_async_context(Connection(server.port))
        connection.send(path, headers, body)

    before = server.resident_kib()
    for start in range(0, len(bodies), OPEN_AT_ONCE):
        await asyncio.gather(*map(send, bodies[start : start + OPEN_AT_ONCE]))
        await asyncio.sleep(0.02)
    await asyncio.sleep(SETTLE)
    return (server.resident_kib() - before) / len(bodies)
