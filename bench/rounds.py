"""Interleaved rounds, and what is told of them: the median, and the least and greatest as the spread."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

K = TypeVar("K")
T = TypeVar("T")


class Spread(NamedTuple):
    """Rounds of one measurement."""

    median: float
    least: float
    greatest: float
    rounds: list[float]


def spread(values: Iterable[float]) -> Spread:
    """Sum up rounds."""
    rounds = list(values)
    return Spread(statistics.median(rounds), min(rounds), max(rounds), rounds)


def ratios(values: Sequence[float], base: Sequence[float]) -> Spread:
    """Sum up each round's value over that round's base: what slows both down leaves the ratio as it is."""
    return spread(value / reference for value, reference in zip(values, base, strict=True))


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def interleaved(cases: Mapping[K, Callable[[], T]], rounds: int) -> dict[K, list[T]]:
    """Run every case once, then every case once more, and so on; one more round before these warms up."""
    results: dict[K, list[T]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, run in cases.items():
            result = run()
            if number:
                results[name].append(result)
    return results
