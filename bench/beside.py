"""The relay beside other servers with a device flow: rate, CPU time and latency of each request, and whole logins."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import uvloop

from bench.cost import Cost, Done, Processes, cost_of, costs, latencies, latency_of, measured
from bench.load.browser import Browser
from bench.load.loads import CONNECTIONS, floor_load, relay_loads
from bench.load.rivals import RIVALS, Rival
from bench.load.servers import floor, relay, valkey, workers
from bench.load.sessions import concurrently, create_project, new_settings
from bench.logins import log_in
from bench.rounds import interleaved

KINDS = ("poll", "initiate", "login")
BASES = {name: name for name in ("careful", *(f"{rival} {kind}" for rival in RIVALS for kind in KINDS))}


def measure_rivals(*, rounds: int, seconds: int, logins: int) -> dict[str, Any]:
    """Return the figures of the rivals, of the relay and of the careful floor, all measured in turn."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(valkey())
        settings = new_settings(redis.url)
        project = create_project(settings)
        careful, api = stack.enter_context(floor(redis.url)), stack.enter_context(relay(settings))
        (worker,) = stack.enter_context(workers(settings))
        bare, ours = Processes(careful, redis), Processes(api, redis, worker)
        loads = {"careful": (floor_load(careful.port), bare)}
        loads |= {name: (load, ours) for name, load in relay_loads(api, settings, project).items()}
        rates: dict[str, Callable[[], Cost]] = {}
        for name, run in RIVALS.items():
            rival = stack.enter_context(run(redis.url))
            theirs = Processes(rival.server, redis)
            loads |= {f"{name} {kind}": (load, theirs) for kind, load in rival.loads().items()}
            rates[f"{name} login"] = _logins(rival, theirs, logins)
        rates |= {name: cost_of(load, processes, seconds) for name, (load, processes) in loads.items()}
        rates["login"] = lambda: measured(lambda: Done(logins, log_in(api, project, logins)), ours)
        times = {name: latency_of(load, seconds) for name, (load, _) in loads.items()}
        return {"cases": costs(interleaved(rates, rounds), BASES), "latencies": latencies(interleaved(times, rounds))}


def _logins(rival: Rival, processes: Processes, logins: int) -> Callable[[], Cost]:
    """Return a measurement of whole logins with a rival, 64 at once, each by a person who stays logged in there."""
    persons = [dict(rival.cookies) for _ in range(CONNECTIONS)]

    async def run() -> float:
        left = iter(range(logins))

        async def tool_and_person(cookies: dict[str, str]) -> None:
            async with Browser(rival.server.port, {}) as tool, Browser(rival.server.port, cookies) as person:
                for _ in left:
                    await rival.log_in(tool, person)

        started = time.perf_counter()
        await concurrently(tool_and_person, persons, CONNECTIONS)
        return logins / (time.perf_counter() - started)

    return lambda: measured(lambda: Done(logins, uvloop.run(run())), processes)
