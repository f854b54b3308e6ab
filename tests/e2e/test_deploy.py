"""The dashboard and the alerts, checked against the metrics of real processes."""

import asyncio
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.eventually import wait_until
from tests.support.logins import Caller
from tests.support.scraping import Samples, counted, scrape
from tests.support.services import Service, StartService

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboards/login-relay.json").read_text())
ALERTS: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())

_SELECTOR = re.compile(r"\b(login_relay_[a-z_]+)(?:\{([^}]*)\})?")
_BY = re.compile(r"\bby \(([a-z_, ]+)\)")


def expressions() -> Iterator[tuple[str, str]]:
    """Yield every query, with the name of the panel or alert that uses it."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']!r}", target["expr"]
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


def labels_of(samples: Samples, name: str) -> set[str]:
    """Return the names of all labels that a metric has."""
    return {label for (sample, labels) in samples if sample == name for label, _ in labels}


async def test_all_that_dashboard_and_alerts_ask_for_is_told(start_service: StartService) -> None:
    """After one login every metric of a query exists, and every label that it selects or groups by."""
    service = start_service()
    caller = Caller(service)
    started = caller.initiate()
    assert caller.complete(started).status_code == 200
    assert caller.poll(started).status_code == 201
    samples = await counted(service.apis[0], "polls_total", 1, outcome="success")
    samples |= await scrape(service.workers[0])
    names = {name for name, _ in samples}

    asked = [(who, expression) for who, expression in expressions() if "login_relay_" in expression]
    assert len(asked) > 30
    for who, expression in asked:
        found = _SELECTOR.findall(expression)
        assert found, f"{who}: {expression}"
        for name, selected in found:
            assert name in names, f"{who} asks for {name}, which no process tells"
            wanted = set(re.findall(r"([a-z_]+)\s*=", selected))
            wanted |= {label.strip() for labels in _BY.findall(expression) for label in labels.split(",")}
            assert wanted <= labels_of(samples, name), f"{who}: {name} has no label {wanted}"


async def test_the_metrics_that_the_documentation_lists_are_those_that_processes_tell(service: Service) -> None:
    """Exactly these, by their names without the suffixes of Prometheus."""
    caller = Caller(service)
    started = await asyncio.to_thread(caller.initiate)
    assert (await asyncio.to_thread(caller.complete, started)).status_code == 200
    await wait_until(partial(is_counted, service), within=10)
    told = {name for process in service.processes for name, _ in await scrape(process)}
    told = {name for name in told if name.startswith("login_relay_")}
    rows = re.findall(r"^\| (`login_relay_.*?) \|", (DEPLOY.parent / "docs/observability.md").read_text(), re.MULTILINE)
    listed = {name.replace("…", "login_relay") for row in rows for name in re.findall(r"`(.+?)`", row)}
    assert len(listed) > 20
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in told} == listed


async def is_counted(service: Service) -> bool:
    """Return whether there was a first request: before it the metric has no samples."""
    names = {name for process in service.processes for name, _ in await scrape(process)}
    return "login_relay_http_request_duration_seconds_count" in names


@pytest.mark.parametrize("name", ["prometheus.yml", "alerts.yml"])
def test_prometheus_files_are_of_one_deployment(name: str) -> None:
    """Each job that an alert names is scraped, and each scraped name is a service of the compose file."""
    text = (DEPLOY / "prometheus" / name).read_text()
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    jobs = {config["job_name"]: config["dns_sd_configs"][0] for config in scraped["scrape_configs"]}
    for pattern in re.findall(r'job=~?"([^"]+)"', text):
        assert any(re.fullmatch(pattern, job) for job in jobs), pattern
    services = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text())["services"]
    for discovery in jobs.values():
        assert set(discovery["names"]) <= services.keys()
        assert services[discovery["names"][0]]["environment"]["LOGIN_RELAY_METRICS_HOST"] == "0.0.0.0"  # noqa: S104 - within the compose network


def test_observability_is_a_profile_of_its_own() -> None:
    """`docker compose up` starts neither; with the profile, their files are mounted where the images read them."""
    services = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text())["services"]
    for name in ("prometheus", "grafana"):
        service = services[name]
        assert service["profiles"] == ["observability"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        mounted = [volume.split(":")[0] for volume in service["volumes"] if volume.startswith("./")]
        assert mounted
        assert all((DEPLOY.parent / path).is_dir() for path in mounted)
