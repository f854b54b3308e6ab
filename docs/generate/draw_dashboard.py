"""Draw the Grafana dashboard's panels from a running Prometheus into one HTML page, without Grafana.

`python -m docs.generate.draw_dashboard http://127.0.0.1:9090 dashboard.html`. Each panel is laid out as the dashboard
says and shows what its own queries give; legends and axes are simpler than Grafana's.
"""

import html
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

DASHBOARD = Path(__file__).resolve().parents[2] / "deploy/grafana/dashboards/login-relay.json"
WINDOW, STEP = 480, 5  # seconds
COLUMN, ROW = 52, 30  # pixels of a cell of the dashboard's grid
COLOURS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#f2495c", "#b877d9", "#8ab8ff", "#37872d")
STYLE = """
body { background: #111217; color: #ccccdc; font: 12px sans-serif; margin: 0; position: relative }
div.panel { position: absolute; background: #181b1f; border: 1px solid #2c3235; box-sizing: border-box; padding: 6px }
h2 { font-size: 12px; font-weight: 500; margin: 0 0 2px } h1 { font-size: 13px; margin: 8px 4px; position: absolute }
p.stat { font-size: 34px; text-align: center; margin: 14px 0; font-weight: 500 }
ul { margin: 2px 0; padding: 0; list-style: none; height: 30px; overflow: hidden; line-height: 15px }
li { display: inline-block; margin-right: 10px; white-space: nowrap; font-size: 11px }
li::before { content: "▬ "; color: var(--colour) } text { fill: #8e8e9e; font-size: 10px }
"""

Series = tuple[str, list[tuple[float, float]]]


def query(prometheus: str, panel: dict[str, Any], end: float) -> list[Series]:
    """Return the series of a panel's queries over the window, each under its legend."""
    found: list[Series] = []
    for target in panel["targets"]:
        expression = target["expr"].replace("$__rate_interval", "1m")
        asked = {"query": expression, "start": end - WINDOW, "end": end, "step": STEP}
        answer = httpx.get(f"{prometheus}/api/v1/query_range", params=asked, timeout=30).raise_for_status().json()
        for series in answer["data"]["result"]:
            legend = target["legendFormat"]
            for label, value in series["metric"].items():
                legend = legend.replace(f"{{{{{label}}}}}", value)
            legend = re.sub(r"{{.*?}}", "", legend)  # a label that the series does not have
            points = [(float(at), float(value)) for at, value in series["values"] if value != "NaN"]
            found.append((legend, points))
    return found


def shown(value: float, unit: str) -> str:
    """Return a value with its unit, as short as it can be read."""
    if unit == "percentunit":
        return f"{value:.0%}"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if 0 < value < 1 else f"{value:.3g} s"
    return f"{value:.3g}" + {"ops": "/s", "reqps": "/s"}.get(unit, "")


def colour_of(value: float, steps: Sequence[dict[str, Any]]) -> str:
    """Return the colour of the highest threshold that a value has reached."""
    names = {"green": COLOURS[0], "yellow": COLOURS[1], "red": COLOURS[4]}
    return names[[step for step in steps if step["value"] is None or value >= step["value"]][-1]["color"]]


def chart(series: Sequence[Series], unit: str, size: tuple[int, int], end: float, *, stacked: bool) -> str:
    """Return lines, or stacked areas, with the scale at the left."""
    width, height = size
    totals: dict[float, float] = {}
    lines = []
    for _, points in series:
        line = []
        for at, value in points:
            base = totals.get(at, 0.0) if stacked else 0.0
            totals[at] = base + value
            line.append((at, base, base + value))
        lines.append(line)
    top = max((high for line in lines for _, _, high in line), default=0) or 1
    left, bottom = 48, height - 14

    def place(at: float, value: float) -> str:
        return f"{left + (at - end + WINDOW) / WINDOW * (width - left):.1f},{bottom - value / top * (bottom - 8):.1f}"

    drawn = [
        f'<text x="0" y="{bottom - share * (bottom - 8) + 3:.0f}">{shown(share * top, unit)}</text>'
        f'<path d="M{left} {bottom - share * (bottom - 8):.0f}H{width}" stroke="#2c3235"/>'
        for share in (0, 0.5, 1)
    ]
    for index, line in enumerate(lines):
        if not line:
            continue
        colour = COLOURS[index % len(COLOURS)]
        upper = [place(at, high) for at, _, high in line]
        lower = [place(at, low) for at, low, _ in reversed(line)] if stacked else []
        opacity = 0.3 if stacked else 0
        drawn.append(f'<polygon points="{" ".join(upper + lower)}" fill="{colour}" fill-opacity="{opacity}"/>')
        drawn.append(f'<polyline points="{" ".join(upper)}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
    times = "".join(
        f'<text x="{left + share * (width - left) - 24:.0f}" y="{height - 2}">'
        f"{time.strftime('%H:%M', time.gmtime(end - WINDOW + share * WINDOW))}</text>"
        for share in (0.2, 0.4, 0.6, 0.8)
    )
    return f'<svg width="{width}" height="{height}">{"".join(drawn)}{times}</svg>'


def draw(prometheus: str, panel: dict[str, Any], end: float) -> str:
    """Return one panel."""
    grid = panel["gridPos"]
    left, top, width, height = grid["x"] * COLUMN, grid["y"] * ROW, grid["w"] * COLUMN, grid["h"] * ROW
    title = html.escape(panel["title"])
    if panel["type"] == "row":
        return f'<h1 style="left:{left}px;top:{top}px">▾ {title}</h1>'
    series = query(prometheus, panel, end)
    defaults = panel["fieldConfig"]["defaults"]
    if panel["type"] == "stat":
        value = series[0][1][-1][1] if series and series[0][1] else 0.0
        colour = colour_of(value, defaults["thresholds"]["steps"])
        content = f'<p class="stat" style="color:{colour}">{shown(value, defaults["unit"])}</p>'
    else:
        stacked = "stacking" in defaults["custom"]
        legend = "".join(
            f'<li style="--colour:{COLOURS[index % len(COLOURS)]}">{html.escape(name)}</li>'
            for index, (name, _) in enumerate(series)
        )
        content = chart(series, defaults["unit"], (width - 22, height - 66), end, stacked=stacked)
        content += f"<ul>{legend}</ul>"
    place = f"left:{left + 2}px;top:{top + 2}px;width:{width - 4}px;height:{height - 4}px"
    return f'<div class="panel" style="{place}"><h2>{title}</h2>{content}</div>'


def main(prometheus: str, target: str) -> None:
    """Draw all panels."""
    end = time.time()
    panels = [draw(prometheus, panel, end) for panel in json.loads(DASHBOARD.read_text())["panels"]]
    page = f'<!doctype html><meta charset="utf-8"><title>login-relay</title><style>{STYLE}</style>{"".join(panels)}'
    Path(target).write_text(page)


if __name__ == "__main__":
    main(*sys.argv[1:])
