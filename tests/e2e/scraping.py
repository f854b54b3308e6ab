"""Scraping processes, as Prometheus does."""

import re

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import Process
from tests.eventually import wait_until

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def metrics_url(process: Process) -> str:
    """Return where a process serves its metrics, once it has said so."""
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
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """Return the sum of the samples of `login_relay_<name>` that have these labels; 0 if there are none."""
    return sum(
        sample for (full, given), sample in samples.items() if full == f"login_relay_{name}" and given >= labels.items()
    )
