"""`python -m bench.stages`: where the time of one complete goes, from the timestamps of Redis' MONITOR.

The stages are the commands that Redis receives meanwhile, each by the process that sent it, whatever they are.
"""

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
from redis import Redis
from redis.client import Monitor
from redis.exceptions import ConnectionError as RedisConnectionError

from bench.load.client import COMPLETE, Connection
from bench.load.servers import Server, relay, valkey, workers
from bench.load.sessions import REFRESH_TOKEN, Project, create_project, initiate, new_settings
from bench.rounds import percentile
from runtime.redis.scripts import Script
from statemachine.store.initiating import Initiated

COMPLETES = 500
WARM_UP = 100
SETTLE = 2.0  # seconds for the worker to start, and for the last lines
ROOT = Path(__file__).parents[1]
WAITING = {"XREADGROUP"}  # the worker asks for the next entry: no part of this complete


class Sent(NamedTuple):
    """A command that Redis received."""

    at: float
    """Seconds since the epoch."""
    address: str
    command: str


def main() -> int:
    """Print the table of the stages."""
    with valkey() as redis:
        settings = new_settings(redis.url)
        project = create_project(settings)
        sessions = initiate(settings, project, WARM_UP + COMPLETES)
        with relay(settings) as api, workers(settings), _monitored(redis.url) as sent:
            time.sleep(SETTLE)
            spans = uvloop.run(_complete(api, project, sessions))[WARM_UP:]
            time.sleep(SETTLE)
            senders = _senders(redis.url)
    within = [[each for each in sent if begun <= each.at <= ended] for begun, ended in spans]
    named = [tuple(f"{senders.get(each.address, '?')}: {each.command}" for each in sent) for sent in within]
    usual, times = Counter(named).most_common(1)[0]
    rows = [
        (begun, *(each.at for each in sent), ended)
        for (begun, ended), sent, names in zip(spans, within, named, strict=True)
        if names == usual
    ]
    print(f"{times} of {len(spans)} completes, one at a time, sent these commands.\n")
    print("| until Redis receives | p50 | p90 |\n| --- | ---: | ---: |")
    for number, name in enumerate((*usual, "(the backend has the answer)")):
        _print_row(name, [row[number + 1] - row[number] for row in rows])
    _print_row("all", [row[-1] - row[0] for row in rows])
    return 0


def _print_row(name: str, seconds: list[float]) -> None:
    p50, p90 = (percentile(seconds, percent) * 1000 for percent in (50, 90))
    print(f"| {name} | {p50:.2f} ms | {p90:.2f} ms |")


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
def _monitored(url: str) -> Iterator[list[Sent]]:
    """Yield a list that collects the commands that clients send."""
    sent: list[Sent] = []
    scripts = _scripts()
    with Redis.from_url(url) as redis, redis.monitor() as monitor:

        def listen() -> None:
            for line in _until_closed(monitor):
                name, _, rest = line["command"].partition(" ")
                name = name.upper()
                if line["client_type"] != "lua" and name not in WAITING:
                    script = scripts.get(rest.partition(" ")[0])
                    address = f"{line['client_address']}:{line['client_port']}"
                    sent.append(Sent(line["time"], address, f"{script}.lua" if script else name))

        threading.Thread(target=listen, daemon=True).start()
        yield sent


def _until_closed(monitor: Monitor) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(RedisConnectionError, OSError, ValueError):
        yield from monitor.listen()


def _scripts() -> dict[str, str]:
    """Return the names of all scripts by their hash."""
    return {Script.of(path.stem, path.read_text()).sha: path.stem for path in ROOT.glob("[!.]*/**/lua/*.lua")}


def _senders(url: str) -> dict[str, str]:
    """Return for each connection the process that it belongs to, from the name that it gave itself."""
    with Redis.from_url(url) as redis:
        return {each["addr"]: each["name"].partition(":")[2].partition("-")[0] for each in redis.client_list()}


if __name__ == "__main__":
    sys.exit(main())
