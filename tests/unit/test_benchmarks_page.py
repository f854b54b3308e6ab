"""The page of the benchmarks, rendered from the results that are kept."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.report.page import page
from bench.report.targets import targets

ROOT = Path(__file__).parents[2]
RESULTS: dict[str, Any] = json.loads((ROOT / "bench/results/latest.json").read_text())


def test_page_shows_the_results_that_are_kept() -> None:
    """No figure on it is written by hand; `python -m bench --render` renders it again."""
    assert page(RESULTS) == (ROOT / "docs/benchmarks.md").read_text()


@pytest.mark.parametrize(("kib", "verdict"), [(16.0, "met"), (16.004, "**missed**")])
def test_page_says_whether_a_target_is_met(kib: float, verdict: str) -> None:
    """The figure itself decides, not what is left of it when it is rounded for the page."""
    rendered = page({"memory": RESULTS["memory"] | {"kib_per_held_poll": kib}})
    assert f"| API memory per held poll | ≤ 16 KiB | 16.00 KiB | {verdict} |" in rendered


def test_target_that_was_not_measured_is_not_shown() -> None:
    """It must not look as if it were met."""
    assert all(target.value({}) is None for target in targets(1_000))
    assert "| met |" not in page({})


def test_every_target_has_one_bound_and_a_unit() -> None:
    """A figure without a unit would be read as a ratio."""
    for target in targets(1_000):
        assert (target.least is None) != (target.most is None), target.what
        assert target.unit, target.what
