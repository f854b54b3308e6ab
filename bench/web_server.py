"""Settings of the web server beside each other, on the floor: `python -m bench.web_server` (docs/adr/0008)."""

import contextlib
import sys
from collections.abc import Callable

from bench.rounds import interleaved, spread
from bench.servers import Server, floor_with, valkey
from bench.throughput import CONNECTIONS, floor_load
from bench.wrk import wrk

SECONDS = 3
ROUNDS = 5
CHOSEN = ("--http", "1", "--no-ws", "--loop", "uvloop", "--runtime-mode", "st")
VARIANTS = {
    "as chosen": CHOSEN,
    "HTTP/2 too": (*CHOSEN, "--http", "auto"),
    "web server with several threads": (*CHOSEN, "--runtime-mode", "mt"),
    "web server with two threads": (*CHOSEN, "--runtime-mode", "mt", "--runtime-threads", "2"),
    "asyncio's own loop": (*CHOSEN, "--loop", "asyncio"),
    "access log": (*CHOSEN, "--access-log"),
}


def main() -> int:
    """Print a table."""
    cases = {}
    with valkey() as url, contextlib.ExitStack() as stack:
        for name, options in VARIANTS.items():
            server = stack.enter_context(floor_with(url, options))
            for connections in (CONNECTIONS, 1):
                cases[name, connections] = _case(server, connections)
        results = interleaved(cases, ROUNDS)
    print("| | requests/s, 64 connections | CPU per request | p50, one at a time |\n| --- | ---: | ---: | ---: |")
    for name in VARIANTS:
        many, single = results[name, CONNECTIONS], results[name, 1]
        rate, cpu, latency = (
            spread(values).median
            for values in ([rate for rate, _, _ in many], [cpu for _, cpu, _ in many], [p50 for _, _, p50 in single])
        )
        print(f"| {name} | {rate:,.0f} | {cpu:.0f} µs | {latency:.2f} ms |")
    return 0


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
