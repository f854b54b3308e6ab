"""`python -m bench.web_server`: compares settings of the web server on the floor (docs/adr/0008)."""

import contextlib
import sys
import uuid
from collections.abc import Callable

import uvloop

from api.server.http1 import allow_open_files
from bench.load.holding import hold
from bench.load.loads import CONNECTIONS, floor_load
from bench.load.servers import Server, floor_with, valkey
from bench.load.wrk import wrk
from bench.rounds import interleaved, spread

SECONDS = 3
ROUNDS = 5
HELD = 2_000  # requests; granian admits no more than its `backpressure`
# As in api/server/http1.py.
CHOSEN = (
    *("--http", "1", "--no-ws", "--loop", "uvloop", "--runtime-mode", "st"),
    *("--backlog", "4096", "--backpressure", "16384"),
)
VARIANTS = {
    "as chosen": CHOSEN,
    "HTTP/2 too": (*CHOSEN, "--http", "auto"),
    "web server with several threads": (*CHOSEN, "--runtime-mode", "mt"),
    "web server with two threads": (*CHOSEN, "--runtime-mode", "mt", "--runtime-threads", "2"),
    "asyncio's own loop": (*CHOSEN, "--loop", "asyncio"),
    "access log": (*CHOSEN, "--access-log"),
}


def main() -> int:
    """Print the table of the settings."""
    allow_open_files()
    cases, servers, held = {}, {}, {}
    with valkey() as redis, contextlib.ExitStack() as stack:
        for name, options in VARIANTS.items():
            server = servers[name] = stack.enter_context(floor_with(redis.url, options))
            for connections in (CONNECTIONS, 1):
                cases[name, connections] = _case(server, connections)
        results = interleaved(cases, ROUNDS)
        for name, server in servers.items():
            held[name] = uvloop.run(_held(server))
    print("| | requests/s, 64 connections | CPU per request | p50, one at a time | per held request |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in VARIANTS:
        many, single = results[name, CONNECTIONS], results[name, 1]
        rate, cpu, latency = (
            spread(values).median
            for values in ([rate for rate, _, _ in many], [cpu for _, cpu, _ in many], [p50 for _, _, p50 in single])
        )
        print(f"| {name} | {rate:,.0f} | {cpu:.0f} µs | {latency:.2f} ms | {held[name]:.1f} KiB |")
    return 0


async def _held(server: Server) -> float:
    """Return KiB of resident memory per held request."""
    headers = {"content-type": "application/json", "prefer": "wait=300"}
    bodies = [{"polling_code": uuid.uuid4().hex} for _ in range(HELD)]
    async with contextlib.AsyncExitStack() as stack:
        return await hold(stack, server, "/hold", headers, bodies)


def _case(server: Server, connections: int) -> Callable[[], tuple[float, float, float]]:
    load = floor_load(server.port)

    def run() -> tuple[float, float, float]:
        before = server.cpu_seconds()
        answered = wrk(load, connections=connections, seconds=SECONDS)
        used = (server.cpu_seconds() - before) * 1_000_000
        return answered.per_second, used / answered.requests, answered.p50_ms

    return run


if __name__ == "__main__":
    sys.exit(main())
