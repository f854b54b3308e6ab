"""Interleaved rounds, and their summary: the median, and the least and greatest as the spread."""

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
    """Return the summary of rounds."""
    rounds = list(values)
    return Spread(statistics.median(rounds), min(rounds), max(rounds), rounds)


def ratios(values: Sequence[float], base: Sequence[float]) -> Spread:
    """Return the summary of the ratios to the base of the same round: if both are slowed, the ratio stays."""
    return spread(value / reference for value, reference in zip(values, base, strict=True))


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the value that `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def interleaved(cases: Mapping[K, Callable[[], T]], rounds: int) -> dict[K, list[T]]:
    """Run all cases in turn, round by round, after one more round to warm up; return the results by case."""
    results: dict[K, list[T]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, run in cases.items():
            result = run()
            if number:
                results[name].append(result)
    return results
