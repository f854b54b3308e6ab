"""The bound of memory that the budgets make, against the defaults and what the documents say of it."""

import re

from projects.worst_case import DEFAULT_PROJECTS, RESERVE_BYTES, WorstCase, consumed_bytes, memory_mb
from runtime.settings import Settings
from tests.support.named_tests import ROOT

DEFAULTS = Settings()


def of_defaults(projects: int) -> WorstCase:
    """Return what the default settings allow."""
    return WorstCase.of(live_sessions=DEFAULTS.live_sessions_per_project, events=DEFAULTS.events_max, projects=projects)


def test_default_memory_is_what_the_default_budgets_need() -> None:
    """Half of it, the `maxmemory`, holds the worst case of two projects, and is no GiB larger than that."""
    assert memory_mb(of_defaults(DEFAULT_PROJECTS)) == DEFAULTS.redis_memory_mb
    maxmemory = DEFAULTS.redis_memory_mb // 2 << 20
    assert maxmemory - (1 << 30) < of_defaults(DEFAULT_PROJECTS).relay <= maxmemory


def test_compose_has_the_same_default() -> None:
    """In the limit of the container and in what Redis is given."""
    defaults = re.findall(r"\$\{LOGIN_RELAY_REDIS_MEMORY_MB:-(\d+)\}", (ROOT / "docker-compose.yml").read_text())
    assert set(map(int, defaults)) == {DEFAULTS.redis_memory_mb}


def test_relay_is_the_sum_of_its_projects_and_events() -> None:
    """What is not counted has a reserve."""
    one, two = (WorstCase.of(live_sessions=10, events=100, projects=projects) for projects in (1, 2))
    assert two.relay - one.relay == one.project == two.project
    assert one.relay == one.project + one.events + RESERVE_BYTES


def test_security_says_the_figures_of_the_defaults() -> None:
    """The table in SECURITY.md, in MiB as doctor prints them."""
    worst = of_defaults(DEFAULT_PROJECTS)
    consumed = consumed_bytes(
        initiations=DEFAULTS.initiations_per_project,
        window_ms=DEFAULTS.budget_window_ms,
        retention_ms=DEFAULTS.retention_ms,
    )
    text = (ROOT / "SECURITY.md").read_text()
    for says, bytes_ in (
        ("sessions of one project", worst.project),
        ("events of all projects", worst.events),
        ("reserve", RESERVE_BYTES),
        (f"relay with {DEFAULT_PROJECTS} projects", worst.relay),
        ("its `maxmemory`", DEFAULTS.redis_memory_mb // 2 << 20),
    ):
        assert re.search(rf"^\| {re.escape(says)} \|[^|]*\| {bytes_ >> 20} \|$", text, re.MULTILINE), says
    assert f"{consumed / 1e9:.0f} GB" in text
