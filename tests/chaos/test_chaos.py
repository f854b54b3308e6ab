"""A short run of `make chaos`."""

from pathlib import Path

import pytest
import uvloop

from tests.chaos.runner import report, run

SECONDS, SEED = 15, 7


@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_nothing_is_lost_doubled_or_stuck(tmp_path: Path) -> None:
    """Full logins while processes are killed and connections break, on the schedule of one seed."""
    done = uvloop.run(run(SECONDS, SEED, tmp_path))

    assert done.verdict.holds, report(done, SECONDS, SEED)
    assert done.verdict.logins
