"""The targets of the figures, as ratios within one run on one machine if possible. A missed target fails nothing."""

from collections.abc import Mapping
from typing import Any, NamedTuple

FLAT = 0.10


class Target(NamedTuple):
    """A bound on one figure of the results."""

    what: str
    path: tuple[str, ...]
    least: float | None = None
    most: float | None = None
    unit: str = ""

    def value(self, results: Mapping[str, Any]) -> float | None:
        """Return the figure; None if it was not measured."""
        found: Any = results
        for name in self.path:
            if name not in found:
                return None
            found = found[name]
        return float(found)

    def is_met(self, value: float) -> bool:
        """Return whether the figure is within the bounds."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    @property
    def bound(self) -> str:
        """The bounds, in words for people."""
        if self.least is not None and self.most is not None:
            return f"{self.least:g} … {self.most:g}{self.unit}"
        return f"≥ {self.least:,g}{self.unit}" if self.least is not None else f"≤ {self.most:,g}{self.unit}"


def targets(most_live: int) -> list[Target]:
    """Return all targets. `most_live` is the greatest number of live sessions that was measured."""
    throughput, growth = ("throughput", "cases"), ("growth", "levels", str(most_live))
    return [
        Target(
            "pending poll, of the floor", (*throughput, "poll c64", "per_second_to_floor", "median"), 0.85, None, " ×"
        ),
        Target(
            "pending poll, of one that is neither counted nor logged",
            ("observing", "to_unobserved", "median"),
            0.95,
            None,
            " ×",
        ),
        Target(
            "initiate, of the floor", (*throughput, "initiate c64", "per_second_to_floor", "median"), 0.65, None, " ×"
        ),
        Target(
            "pending poll, of the rival's",
            ("rival", "cases", "poll c64", "per_second_to_rival", "median"),
            1.1,
            None,
            " ×",
        ),
        Target(
            "initiate, of the rival's",
            ("rival", "cases", "initiate c64", "per_second_to_rival", "median"),
            1.5,
            None,
            " ×",
        ),
        Target(
            "complete one at a time, of the floor's latency",
            (*throughput, "complete c1", "p50_to_floor", "median"),
            None,
            3.0,
            " ×",
        ),
        Target(
            "time to token, p50 with 1 000 waiting",
            ("time_to_token", "waiting", "1000", "p50_ms", "median"),
            None,
            10.0,
            " ms",
        ),
        Target("transitions per second of one worker", ("drain", "workers", "1", "median"), 10_000, None, "/s"),
        Target("API memory per held poll", ("memory", "kib_per_held_poll"), None, 12.0, " KiB"),
        Target("Redis memory per live session", ("memory", "redis_bytes_per_session"), None, 1_229, " B"),
        *(
            Target(
                f"{kind} with {most_live:,} live sessions, of that with the fewest",
                (*growth, f"{name}_to_least", "median"),
                1 - FLAT if name == "poll" else None,
                1 + FLAT if name != "poll" else None,
                " ×",
            )
            for kind, name in (("polls per second", "poll"), ("time of a complete", "complete"))
        ),
    ]
