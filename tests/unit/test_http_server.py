"""The web server's settings."""

import resource
from collections.abc import Iterator

import pytest

from api.server.http1 import MAX_REQUESTS, allow_open_files


@pytest.fixture
def hard_limit() -> Iterator[int]:
    """Return the hard limit of open files; the soft one is put back after the test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_may_open_a_file_for_each_request(hard_limit: int) -> None:
    """The soft limit is raised to what the requests need, or to the hard limit where that is less."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard_limit))
    allow_open_files()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == hard_limit
    assert soft > MAX_REQUESTS or soft == hard


def test_a_higher_limit_is_left_alone(hard_limit: int) -> None:
    """A higher limit was set on purpose."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    allow_open_files()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard_limit, hard_limit)
