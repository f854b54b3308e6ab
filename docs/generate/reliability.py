"""The README's figures of reliability: what runs of `make chaos` wrote to docs/reliability/, one file each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

RUNS = Path(__file__).parents[1] / "reliability"

NO_FIGURES = (
    "No figures yet: `make chaos SECONDS=300 SEED=1 JSON=docs/reliability/seed-1.json`, the same with two more seeds, "
    "then `make docs`."
)


class Timed(NamedTuple):
    """A kind of fault whose recovery is shown."""

    kind: str
    times: str
    """Which times of a run's report."""
    what: str


WORKER_KILLED = Timed(
    "worker killed mid-batch", "client_times", "from its death to the answer of each request that it had in hand"
)
TIMED = (
    WORKER_KILLED,
    Timed("Redis killed and restarted", "relay_times", "from the moment Redis serves again to the first whole login"),
    Timed("pub/sub forbidden 3 s", "client_times", "each completion and each hand-over that began meanwhile"),
)

RIVALS = (
    ("BullMQ", "https://docs.bullmq.io/guide/jobs/stalled", "30 to 60 s"),
    ("streaq", "https://github.com/tastyware/streaq/blob/56567dc/streaq/worker.py#L227", "60 s"),
    ("Dramatiq", "https://github.com/Bogdanp/dramatiq/blob/848b35f/dramatiq/brokers/redis.py#L76", "60 s and more"),
    ("Asynq", "https://github.com/hibiken/asynq/blob/785bb72/recoverer.go#L90", "60 to 120 s"),
    ("docket", "https://github.com/chrisguidry/docket/blob/67f9394/docs/production.md", "5 min"),
    ("taskiq-redis", "https://github.com/taskiq-python/taskiq-redis/issues/101", "10 min"),
)
"""When a dead worker's task is another's, by default: their documentation or source."""


def reliability() -> str:
    """Return the tables, or how to get them."""
    runs: list[dict[str, Any]] = [json.loads(path.read_text()) for path in RUNS.glob("*.json")]
    if not runs:
        return NO_FIGURES
    runs.sort(key=lambda run: int(run["seed"]))
    return "\n\n".join((_setting(runs), _verdicts(runs), _recoveries(runs), _beside_rivals(runs)))


def _setting(runs: Sequence[dict[str, Any]]) -> str:
    seconds = " and ".join(sorted({f"{run['seconds']:g}" for run in runs}))
    clients, processors = (" or ".join(sorted({str(run[name]) for run in runs})) for name in ("clients", "processors"))
    return (
        f"{clients} clients log in over two API processes, three workers and one Valkey, all on {processors} "
        "processors, while processes are killed, frozen and cut off: first many faults at once, then one by one. "
        f"These are runs of `make chaos SECONDS={seconds}`; each seed reproduces its faults:"
    )


def _verdicts(runs: Sequence[dict[str, Any]]) -> str:
    lines = ["| seed | logins | faults | lost | doubled | stuck |", "| ---: | ---: | ---: | ---: | ---: | ---: |"]
    for run in runs:
        found = (len(run[name]) for name in ("lost", "doubled", "stuck"))
        lines.append(
            "| " + " | ".join(str(cell) for cell in (run["seed"], run["logins"], run["faults"], *found)) + " |"
        )
    return "\n".join(lines)


def _recoveries(runs: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| fault, with no other at the time | times | measured | p50 | p99 | worst |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for timed in TIMED:
        faults = sum(run["recoveries"].get(timed.kind, {"faults": 0})["faults"] for run in runs)
        if times := _times(runs, timed):
            figures = " | ".join(
                f"{seconds:.2f} s" for seconds in (_quantile(times, 0.5), _quantile(times, 0.99), times[-1])
            )
            lines.append(f"| {timed.kind} | {faults} | {timed.what} | {figures} |")
    return "\n".join(lines)


def _beside_rivals(runs: Sequence[dict[str, Any]]) -> str:
    lines = [
        "Task queues that could carry the commands too give a dead worker's task to another one, by default, after:",
        "",
        "| | |",
        "| --- | ---: |",
    ]
    if times := _times(runs, WORKER_KILLED):
        lines.append(f"| login-relay, the worst above | {times[-1]:.1f} s |")
    lines += [f"| [{name}]({link}) | {after} |" for name, link, after in RIVALS]
    lines += ["", "Their times can be shortened to the longest run of a task; a command here takes milliseconds."]
    return "\n".join(lines)


def _times(runs: Sequence[dict[str, Any]], timed: Timed) -> list[float]:
    return sorted(time for run in runs for time in run["recoveries"].get(timed.kind, {}).get(timed.times, ()))


def _quantile(times: Sequence[float], share: float) -> float:
    return times[min(len(times) - 1, int(share * len(times)))]
