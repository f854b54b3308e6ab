"""What a request costs: the CPU time that all processes spend on it, beside two floors; its rate, and its latency.

CPU time moves far less than a rate when the machine is busy with other work, so the targets are ratios of it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from bench.load.loads import CONNECTIONS, FASTEST, completes, consumes, floor_load, relay_loads
from bench.load.servers import Process, Server, floor, relay, valkey, workers
from bench.load.sessions import Project, create_project, new_settings
from bench.load.wrk import Answered, Load, wrk
from bench.logins import log_in
from bench.rounds import interleaved, ratios, spread
from runtime.settings import Settings

FLOORS = {"mechanical": "mechanical", "careful": "careful"}


class Done(NamedTuple):
    """A number of requests, or of whole logins, and their rate."""

    number: int
    per_second: float


class Processes(NamedTuple):
    """The processes whose CPU time counts."""

    api: Process
    redis: Process
    worker: Process | None = None

    def cpu_seconds(self) -> tuple[float, ...]:
        """Return the CPU time of each."""
        return tuple(each.cpu_seconds() if each else 0.0 for each in self)


class Cost(NamedTuple):
    """The rate of requests, or of logins, and the microseconds of CPU time of each, by process."""

    per_second: float
    api_us: float
    redis_us: float
    worker_us: float

    @property
    def cpu_us(self) -> float:
        """All processes together."""
        return self.api_us + self.redis_us + self.worker_us


def measure_cost(*, rounds: int, seconds: int, logins: int) -> dict[str, Any]:
    """Return CPU time and rate with 64 connections, of both floors, of each request and of a whole login."""
    with valkey() as redis:
        settings = new_settings(redis.url)
        project = create_project(settings)
        with (
            floor(redis.url, "mechanical") as mechanical,
            floor(redis.url, "careful") as careful,
            relay(settings) as api,
            workers(settings) as (worker,),
        ):
            ours = Processes(api, redis, worker)
            cases = {
                "mechanical": cost_of(floor_load(mechanical.port), Processes(mechanical, redis), seconds),
                "careful": cost_of(floor_load(careful.port), Processes(careful, redis), seconds),
            }
            for name, load in relay_loads(api, settings, project).items():
                cases[name] = cost_of(load, ours, seconds)
            for name, prepare in _fresh(api, settings, project).items():
                cases[name] = cost_of(partial(prepare, FASTEST[CONNECTIONS] * seconds), ours, seconds)
            cases["login"] = lambda: measured(lambda: Done(logins, log_in(api, project, logins)), ours)
            return {"cases": costs(interleaved(cases, rounds), FLOORS)}


def measure_latency(*, rounds: int, seconds: int) -> dict[str, Any]:
    """Return the latency of each request, and of the careful floor, one request at a time."""
    with valkey() as redis:
        settings = new_settings(redis.url)
        project = create_project(settings)
        with floor(redis.url) as careful, relay(settings) as api, workers(settings):
            steady = {"careful": floor_load(careful.port)} | relay_loads(api, settings, project)
            cases = {name: latency_of(load, seconds) for name, load in steady.items()}
            for name, prepare in _fresh(api, settings, project).items():
                cases[name] = latency_of(partial(prepare, FASTEST[1] * seconds), seconds)
            return {"cases": latencies(interleaved(cases, rounds))}


def _fresh(api: Server, settings: Settings, project: Project) -> dict[str, Callable[[int], Load]]:
    """Return the requests that succeed once for each session, with the functions that prepare a number of them."""
    return {
        "complete": lambda count: completes(api, settings, project, count),
        "consume": lambda count: consumes(api, settings, project, count),
    }


def cost_of(load: Load | Callable[[], Load], processes: Processes, seconds: int) -> Callable[[], Cost]:
    """Return a measurement of a load. A load that can be sent once is given as a function that prepares it."""

    def run() -> Cost:
        prepared = load() if callable(load) else load

        def send() -> Done:
            answered = wrk(prepared, connections=CONNECTIONS, seconds=seconds)
            return Done(answered.requests, answered.per_second)

        return measured(send, processes)

    return run


def measured(do: Callable[[], Done], processes: Processes) -> Cost:
    """Return what the processes spend on it."""
    before = processes.cpu_seconds()
    done = do()
    spent = zip(processes.cpu_seconds(), before, strict=True)
    return Cost(done.per_second, *((after - before) / done.number * 1e6 for after, before in spent))


def costs(results: Mapping[str, Sequence[Cost]], bases: Mapping[str, str]) -> dict[str, Any]:
    """Return for each case its figures, and the ratios of its rate and CPU time to those of other cases, by label."""
    summed_up: dict[str, Any] = {}
    for name, cases in results.items():
        summed_up[name] = {
            field: spread(getattr(each, field) for each in cases)._asdict() for field in (*Cost._fields, "cpu_us")
        }
        for label, base in bases.items():
            pairs = {field: (_each(cases, field), _each(results[base], field)) for field in ("per_second", "cpu_us")}
            for field, pair in pairs.items():
                summed_up[name][f"{field}_to_{label}"] = ratios(*pair)._asdict()
    return summed_up


def _each(cases: Sequence[Cost], field: str) -> list[float]:
    return [getattr(each, field) for each in cases]


def latency_of(load: Load | Callable[[], Load], seconds: int) -> Callable[[], Answered]:
    """Return a measurement of a load's latency, one request at a time."""
    return lambda: wrk(load() if callable(load) else load, connections=1, seconds=seconds)


def latencies(results: Mapping[str, Sequence[Answered]]) -> dict[str, Any]:
    """Return for each case its figures, and the ratio of its median latency to that of the careful floor."""
    summed_up = {}
    for name, answers in results.items():
        pair = ([each.p50_ms for each in cases] for cases in (answers, results["careful"]))
        summed_up[name] = {
            "p50_ms": spread(each.p50_ms for each in answers)._asdict(),
            "p99_ms": spread(each.p99_ms for each in answers)._asdict(),
            "p50_to_careful": ratios(*pair)._asdict(),
        }
    return summed_up
