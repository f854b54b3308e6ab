"""Draws the results as one picture, for the README."""

from collections.abc import Callable  # noqa: TC003 - an annotation, not worth a block of its own
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

OURS, OURS_AT_WORST, FLOOR, RIVAL, LINE = "#2f6f9f", "#9cc0da", "#8a9199", "#c98b3c", "#d0d5da"
CAPTION = "Bars: median of interleaved rounds on one machine; whiskers: least to greatest. One server process each."
FLOORS = {"mechanical": "mechanical floor", "careful": "careful floor"}
OURS_BY_NAME = {"poll": "pending poll", "initiate": "initiate", "complete": "complete", "consume": "poll with token"}
RIVALS = {
    f"{rival} {kind}": f"{rival}: {kind}"
    for rival in ("oidc-provider", "django-oauth-toolkit")
    for kind in ("poll", "initiate")
}
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "login-relay",  # the same results draw the same file
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the results that were measured."""
    panels: list[Callable[[Axes], None]] = []
    beside = results.get("rivals", {})
    if "cost" in results:
        cases = results["cost"]["cases"]
        panels += [lambda axes: _cpu(axes, cases), lambda axes: _rates(axes, cases, beside.get("cases", {}))]
    if "latency" in results:
        panels.append(lambda axes: _latencies(axes, results["latency"]["cases"], beside.get("latencies", {})))
    if "time_to_token" in results:
        panels.append(lambda axes: _time_to_token(axes, results["time_to_token"]["waiting"]))
    if "drain" in results:
        panels.append(lambda axes: _drain(axes, results["drain"]["workers"]))
    rows = (len(panels) + 1) // 2
    mpl.rcParams.update(STYLE)
    figure = Figure(
        figsize=(10.5, 0.4 + 3.1 * rows), layout=ConstrainedLayoutEngine(hspace=0.07, wspace=0.05), facecolor="white"
    )
    for axes, panel in zip(figure.subplots(rows, 2, squeeze=False).flat, panels, strict=False):
        panel(axes)
    for axes in figure.axes[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel(CAPTION, fontsize=8.5, color="#555555")
    figure.savefig(path, format="svg", metadata={"Date": None})


def _bars(axes: Axes, title: str, bars: list[tuple[str, dict[str, Any], str, str]], *, digits: int = 0) -> None:
    """Draw bars from top to bottom: label, spread, colour, and the text beside the bar."""
    bars.reverse()
    medians = [spread["median"] for _, spread, _, _ in bars]
    errors = [
        [spread["median"] - spread["least"] for _, spread, _, _ in bars],
        [spread["greatest"] - spread["median"] for _, spread, _, _ in bars],
    ]
    axes.barh(range(len(bars)), medians, color=[colour for _, _, colour, _ in bars], height=0.66)
    axes.errorbar(medians, range(len(bars)), xerr=errors, fmt="none", ecolor="#333333", elinewidth=0.9, capsize=2)
    greatest = max(spread["greatest"] for _, spread, _, _ in bars)
    for position, (_, spread, _, note) in enumerate(bars):
        text = f"{spread['median']:,.{digits}f}{note}"
        axes.text(spread["greatest"] + greatest * 0.02, position, text, va="center", color="#222222")
    axes.set_yticks(range(len(bars)), [label for label, *_ in bars])
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, greatest * 1.42)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.grid(visible=True, color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left", fontweight="bold", fontsize=10.5)


def _cpu(axes: Axes, cases: dict[str, Any]) -> None:
    bars = []
    for name, label in (*FLOORS.items(), *OURS_BY_NAME.items()):
        note = "" if name == "mechanical" else f"  ({cases[name]['cpu_us_to_mechanical']['median']:.1f} ×)"
        bars.append((label, cases[name]["cpu_us"], FLOOR if name in FLOORS else OURS, f" µs{note}"))
    _bars(axes, "CPU time of a request, all processes (× mechanical floor)", bars)


def _rates(axes: Axes, cases: dict[str, Any], rival: dict[str, Any]) -> None:
    bars = [
        (label, cases[name]["per_second"], FLOOR if name in FLOORS else OURS, "")
        for name, label in (*FLOORS.items(), *OURS_BY_NAME.items())
    ]
    bars += [(label, rival[name]["per_second"], RIVAL, "") for name, label in RIVALS.items() if name in rival]
    _bars(axes, "Requests per second, 64 connections, one process", bars)


def _latencies(axes: Axes, cases: dict[str, Any], rival: dict[str, Any]) -> None:
    bars = [
        (label, cases[name]["p50_ms"], FLOOR if name in FLOORS else OURS, " ms")
        for name, label in (*FLOORS.items(), *OURS_BY_NAME.items())
        if name in cases
    ]
    bars += [(label, rival[name]["p50_ms"], RIVAL, " ms") for name, label in RIVALS.items() if name in rival]
    _bars(axes, "Median latency, one request at a time", bars, digits=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _time_to_token(axes: Axes, waiting: dict[str, Any]) -> None:
    bars = []
    for count, times in waiting.items():
        bars.append((f"{int(count):,} waiting, p50", times["p50_ms"], OURS, " ms"))
        bars.append(("p99", times["p99_ms"], OURS_AT_WORST, " ms"))
    _bars(axes, "Time to token: complete sent → token received", bars, digits=1)


def _drain(axes: Axes, workers: dict[str, Any]) -> None:
    bars = [(f"{count} worker{'s' if count != '1' else ''}", rate, OURS, "/s") for count, rate in workers.items()]
    _bars(axes, "Transitions per second, draining", bars)
