"""`python -m bench`: measure, keep the results and render them. `make bench` and `make bench-rivals` start it."""

import argparse
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from bench.beside import measure_rivals
from bench.cost import measure_cost, measure_latency
from bench.drain import measure_drain
from bench.load.rivals import DJANGO_BIN, NODE_MODULES
from bench.logins import measure_logins, measure_time_to_token
from bench.observing import measure_observing
from bench.report.keeping import PAGE, load, machine, save
from bench.report.page import page
from bench.scale import measure_growth, measure_memory
from bench.tokens import measure_tokens

LIVE = 1_000_000


class Effort(NamedTuple):
    """The amount of measuring."""

    rounds: int
    seconds: int
    logins: int
    tokens: int
    backlog: int
    polls: int
    completes: int


FULL = Effort(rounds=5, seconds=3, logins=2_000, tokens=100, backlog=5_000, polls=10_000, completes=1_000)
QUICK = Effort(rounds=2, seconds=1, logins=300, tokens=30, backlog=1_000, polls=1_000, completes=200)


def main() -> int:
    """Run the parts asked for; return 0, or 1 if a part could not be measured, or 2 if a program is not installed."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument(
        "--quick", action="store_true", help="a few rounds, to see that everything runs; nothing is kept"
    )
    parser.add_argument("--live", type=int, help="most live sessions")
    parser.add_argument("--rivals", action="store_true", help="measure only what the relay and its rivals can both do")
    parser.add_argument(
        "--only",
        choices=("cost", "latency", "tokens", "observing", "logins", "time_to_token", "drain", "memory", "growth"),
    )
    parser.add_argument("--render", action="store_true", help="render the existing results without measuring")
    arguments = parser.parse_args()
    if arguments.render:
        save(load())
        return 0
    if shutil.which("wrk") is None:
        print("wrk is not installed: `apt-get install wrk`, or `brew install wrk` on macOS", file=sys.stderr)
        return 2
    if arguments.rivals and not (NODE_MODULES.exists() and DJANGO_BIN.exists()):
        print("the rivals are not installed: `make bench-rivals` does it", file=sys.stderr)
        return 2
    effort = QUICK if arguments.quick else FULL
    most = arguments.live or (10_000 if arguments.quick else LIVE)
    results = {} if arguments.quick else load()
    failed = False
    for name, measure in _sections(effort, most, rivals=arguments.rivals).items():
        if arguments.only in (None, name):
            started = time.monotonic()
            print(f"{name} …", end=" ", flush=True, file=sys.stderr)
            try:
                results[name] = {"machine": machine(), "rounds": effort.rounds, **measure()}
            except Exception:  # noqa: BLE001 - a part that fails must not prevent the others
                traceback.print_exc()
                failed = True
                continue
            print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
            if not arguments.quick:
                save(results)
    print(page(results))
    if not arguments.quick:
        print(f"kept in {PAGE}", file=sys.stderr)
    return int(failed)


def _sections(effort: Effort, most: int, *, rivals: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    rounds, seconds = effort.rounds, effort.seconds
    if rivals:
        return {"rivals": lambda: measure_rivals(rounds=rounds, seconds=seconds, logins=effort.logins // 4)}
    return {
        "cost": lambda: measure_cost(rounds=rounds, seconds=seconds, logins=effort.logins),
        "latency": lambda: measure_latency(rounds=rounds, seconds=seconds),
        "tokens": lambda: measure_tokens(rounds=rounds, seconds=seconds),
        "observing": lambda: measure_observing(rounds=rounds, seconds=seconds),
        "logins": lambda: measure_logins(rounds=rounds, logins=effort.logins),
        "time_to_token": lambda: {"waiting": measure_time_to_token(rounds=rounds, tokens=effort.tokens)},
        "drain": lambda: {"workers": measure_drain(rounds=rounds, sessions=effort.backlog)},
        "memory": lambda: measure_memory(polls=effort.polls, sessions=1_000),
        "growth": lambda: measure_growth([1_000, most], rounds=rounds, seconds=seconds, completes=effort.completes),
    }


if __name__ == "__main__":
    sys.exit(main())
