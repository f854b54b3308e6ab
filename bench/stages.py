"""`python -m bench.stages`: where the time of one complete goes, from the timestamps of Redis' MONITOR."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvloop
from redis import Redis
from redis.client import Monitor
from redis.exceptions import ConnectionError as RedisConnectionError

from bench.load.client import COMPLETE, Connection
from bench.load.servers import Server, relay, valkey, workers
from bench.load.sessions import REFRESH_TOKEN, Project, create_project, initiate, new_settings
from bench.rounds import percentile
from statemachine.store.initiating import Initiated

COMPLETES = 500
WARM_UP = 100
SETTLE = 2.0  # seconds for the worker to start, and for the last lines
STAGES = (
    ("api: from the socket to the look-up of the login code", None, "MGET"),
    ("api: reply, sealing, to the script that records the command", "MGET", "EVALSHA api"),
    ("worker: wakes, to its read of the session", "EVALSHA api", "HMGET"),
    ("worker: reply, decision, to the script that commits it", "HMGET", "EVALSHA worker"),
    ("api: script, reply, to the answer in the backend's hands", "EVALSHA worker", None),
)


def main() -> int:
    """Print the table of the stages."""
    with valkey() as redis:
        settings = new_settings(redis.url)
        project = create_project(settings)
        sessions = initiate(settings, project, WARM_UP + COMPLETES)
        with relay(settings) as api, workers(settings), _monitored(redis.url) as lines:
            time.sleep(SETTLE)
            spans = uvloop.run(_complete(api, project, sessions))[WARM_UP:]
            time.sleep(SETTLE)
    rows = [_stages(begun, ended, lines) for begun, ended in spans]
    print("| stage of a complete, one at a time | p50 | p90 |\n| --- | ---: | ---: |")
    for number, (name, _, _) in enumerate(STAGES):
        times = [row[number] * 1000 for row in rows]
        print(f"| {name} | {percentile(times, 50):.2f} ms | {percentile(times, 90):.2f} ms |")
    whole = [(ended - begun) * 1000 for begun, ended in spans]
    print(f"| all | {percentile(whole, 50):.2f} ms | {percentile(whole, 90):.2f} ms |")
    return 0


async def _complete(api: Server, project: Project, sessions: list[Initiated]) -> list[tuple[float, float]]:
    spans = []
    async with Connection(api.port) as backend:
        for session in sessions:
            body = {"login_code": session.login_code, "refresh_token": REFRESH_TOKEN}
            begun = time.time()
            _ = (await backend.post(COMPLETE, project.server, body)).fields
            spans.append((begun, time.time()))
    return spans


@contextlib.contextmanager
def _monitored(url: str) -> Iterator[list[tuple[float, str]]]:
    """Yield a list that collects the time and name of each command; that of a script's call says who sent it."""
    lines: list[tuple[float, str]] = []
    with Redis.from_url(url) as redis, redis.monitor() as monitor:
        senders: dict[str, str] = {}

        def listen() -> None:
            for line in _until_closed(monitor):
                sender = f"{line['client_address']}:{line['client_port']}"
                name = line["command"].split(" ", 1)[0].upper()
                if name == "HMGET":  # outside a script, only a worker sends it
                    senders[sender] = "worker"
                if line["client_type"] != "lua":
                    who = f" {senders.get(sender, 'api')}" if name == "EVALSHA" else ""
                    lines.append((line["time"], f"{name}{who}"))

        threading.Thread(target=listen, daemon=True).start()
        yield lines


def _until_closed(monitor: Monitor) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(RedisConnectionError, OSError, ValueError):
        yield from monitor.listen()


def _stages(begun: float, ended: float, lines: list[tuple[float, str]]) -> list[float]:
    """Return the seconds of each stage of one complete."""
    at = {name: moment for moment, name in lines if begun <= moment <= ended}
    return [at.get(last or "", ended) - at.get(first or "", begun) for _, first, last in STAGES]


if __name__ == "__main__":
    sys.exit(main())
