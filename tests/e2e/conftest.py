"""Whole services of real processes: API and workers, started as operators start them."""

from collections.abc import Iterator

import pytest

from tests.support.redis_server import RedisServer
from tests.support.services import Service, StartService, services


@pytest.fixture(scope="session")
def service(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One API and one worker, the same for all tests: leave them running."""
    with services(redis_server, tmp_path_factory) as start_service:
        yield start_service()


@pytest.fixture(scope="module")
def start_shared(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartService]:
    """Start services for all tests of a module, as `start_service` does for one test."""
    with services(redis_server, tmp_path_factory) as start:
        yield start


@pytest.fixture
def start_service(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartService]:
    """Start services of one's own: `start_service(apis=2, workers=3, outcome_wait_ms=…)`; do to them as you like."""
    with services(redis_server, tmp_path_factory) as start:
        yield start
