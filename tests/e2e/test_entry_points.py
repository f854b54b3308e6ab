"""`python -m api` and `python -m worker`: the two processes, each by one entry point of the same shape."""

import subprocess
import sys
from signal import Signals

import pytest

from runtime.settings import variable
from tests.support.logins import log_in
from tests.support.services import StartService


async def test_processes_run_as_modules(start_service: StartService) -> None:
    """A login works, and SIGTERM ends both with exit code 0."""
    service = start_service(apis=0, workers=0)
    processes = service.start_modules()
    service.wait_until_ready()
    await log_in(service.url, service.project)
    for process in processes:
        process.send(Signals.SIGTERM)
    assert [process.wait() for process in processes] == [0, 0]


@pytest.mark.parametrize("module", ["api", "worker"])
@pytest.mark.parametrize(("setting", "value"), [("partitions", "0"), ("redis_url", "localhost"), ("redis_url", "")])
def test_module_refuses_a_wrong_setting(module: str, setting: str, value: str) -> None:
    """Exit code 2, and one line that names the variable."""
    environment = {variable(setting): value} if value else {}
    done = subprocess.run(
        (sys.executable, "-m", module), env=environment, check=False, timeout=30, text=True, capture_output=True
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert variable(setting) in line
