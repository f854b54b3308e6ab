"""Scraping processes, as Prometheus does."""

import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import httpx
from prometheus_client import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from tests.support.eventually import wait_until
from tests.support.services import Process

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def metrics_url(process: Process) -> str:
    """Return where a process serves its metrics, once it has logged it."""
    found = await wait_until(lambda: re.search(r'http://[^"]*/metrics', process.output))
    assert found
    return found[0]


async def get(url: str) -> httpx.Response:
    """GET an address of this machine."""
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.get(url)


async def scrape(process: Process) -> Samples:
    """Return a process' samples by name and labels."""
    text = (await get(await metrics_url(process))).raise_for_status().text
    return _samples(text_string_to_metric_families(text))


def read_samples(file: Path) -> Samples:
    """Return the samples in one file of an API whose processes count into files."""
    families = MultiProcessCollector.merge([str(file)])  # type: ignore[no-untyped-call] # it has no annotations
    return _samples(families)


def _samples(families: Iterable[Metric]) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """Return the sum of the samples of `login_relay_<name>` that have these labels; 0 if there are none."""
    return sum(
        sample for (full, given), sample in samples.items() if full == f"login_relay_{name}" and given >= labels.items()
    )


async def counted(process: Process, name: str, expected: float, **labels: str) -> Samples:
    """Scrape until a metric has the expected value; returns all samples."""
    samples: Samples = {}

    async def has_it() -> bool:
        samples.update(await scrape(process))
        return value(samples, name, **labels) == expected

    await wait_until(has_it)
    return samples


def counters(process: Process) -> tuple[Path, list[float]]:
    """Return the folder that a process' children count in, and the polls that each has counted."""
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], check=True, capture_output=True, text=True
    ).stdout.split()
    folders = Path(tempfile.gettempdir()).glob("login-relay-metrics-*")
    [folder] = [path for path in folders if (path / f"counter_{children[0]}.db").exists()]
    files = [folder / f"counter_{pid}.db" for pid in children]
    return folder, [value(read_samples(file), "polls_total") for file in files if file.exists()]
