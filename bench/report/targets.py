"""The targets of the figures, as ratios within one run on one machine if possible. A missed target fails nothing."""

from collections.abc import Mapping
from typing import Any, NamedTuple

FLAT = 0.9  # of the rate with the fewest live sessions


class Target(NamedTuple):
    """A bound on one figure of the results."""

    what: str
    path: tuple[str, ...]
    least: float | None = None
    most: float | None = None
    unit: str = " ×"

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
    cost, beside = ("cost", "cases"), ("rivals", "cases")
    return [
        *(
            Target(
                f"CPU of {what}, of the mechanical floor's", (*cost, name, "cpu_us_to_mechanical", "median"), most=most
            )
            for what, name, most in (
                ("a pending poll", "poll", 2.0),
                ("an initiate", "initiate", 3.5),
                ("a complete", "complete", 6.0),
                ("a poll that gets the token", "consume", 6.0),
            )
        ),
        Target(
            "pending polls per second, of the careful floor's", (*cost, "poll", "per_second_to_careful", "median"), 1.5
        ),
        Target(
            "pending polls per second, of `oidc-provider`'s",
            (*beside, "poll", "per_second_to_oidc-provider poll", "median"),
            1.5,
        ),
        Target(
            "initiates per second, of `oidc-provider`'s",
            (*beside, "initiate", "per_second_to_oidc-provider initiate", "median"),
            1.2,
        ),
        Target(
            "pending polls per second, of a relay without metrics and logs",
            ("observing", "to_unobserved", "median"),
            0.95,
        ),
        Target(
            "time of a complete, one at a time, of the careful floor's request",
            ("latency", "cases", "complete", "p50_to_careful", "median"),
            most=2.5,
        ),
        *(
            Target(
                f"time of {what}, one at a time, of the careful floor's request",
                ("tokens", "latencies", name, "p50_to_careful", "median"),
                most=most,
            )
            for what, name, most in (("a refresh", "refresh", 3.0), ("an introspection", "introspect", 2.0))
        ),
        Target(
            "time to token, p50 with 1 000 waiting",
            ("time_to_token", "waiting", "1000", "p50_ms", "median"),
            most=3.0,
            unit=" ms",
        ),
        Target("transitions per second of one worker", ("drain", "workers", "1", "median"), 20_000, unit="/s"),
        Target("API memory per held poll", ("memory", "kib_per_held_poll"), most=16.0, unit=" KiB"),
        Target("Redis memory per live session", ("memory", "redis_bytes_per_session"), most=1_229, unit=" B"),
        *(
            Target(
                f"{kind} per second with {most_live:,} live sessions, of those with the fewest",
                ("growth", kind, str(most_live), "per_second_to_least", "median"),
                FLAT,
            )
            for kind in ("polls", "completes")
        ),
    ]
