"""Processes of two versions side by side, and processes with wrong clocks."""

import os
import re
import time
from datetime import datetime
from pathlib import Path
from signal import SIGCONT

import pytest

from tests.support.eventually import wait_until
from tests.support.sites import Client, StartSite, change, copy_packages

pytestmark = pytest.mark.faults

FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
HOUR = 3_600

OUR_CLOCK = """
import os, time
_time, _time_ns, _file = time.time, time.time_ns, os.environ["FAKETIME_TIMESTAMP_FILE"]
def _step():
    with open(_file) as file:
        return int(file.read())
time.time = lambda: _time() + _step()
time.time_ns = lambda: _time_ns() + _step() * 1_000_000_000
"""
"""Without libfaketime: the clock as Python code reads it, and all our code is Python."""


class Clock:
    """The clock of processes that have its variables; it can be set."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0)
        self.variables = {
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # the monotonic clock is left alone
        }
        if FAKETIME is not None:
            self.variables["LD_PRELOAD"] = str(FAKETIME)
            return
        (folder / "sitecustomize.py").write_text(OUR_CLOCK)
        self.variables["PYTHONPATH"] = f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"

    def set(self, step: int) -> None:
        """Set it to the real time plus so many seconds; written in one piece, because it is read all the time."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{step:+}")
        new.replace(self._file)


@pytest.fixture
def next_version(tmp_path: Path) -> dict[str, str]:
    """Return the variables of a process of a later version: other scripts, and commands with a new field."""
    folder = tmp_path / "next-version"
    variables = copy_packages(folder)
    for script in folder.rglob("*.lua"):
        script.write_text(script.read_text() + "\n-- of the next version\n")
    encoded = "return _encoder.encode(command)"
    change(folder / "statemachine" / "commands.py", encoded, f"{encoded}[:-1] + b',\"new_field\":1}}'")
    return variables


async def logs_in(client: Client, key: str) -> None:
    """Log in once."""
    login = await client.initiate()
    assert (await client.complete(login, key=key)).status_code == 200
    assert (await client.complete(login, key=key)).status_code == 200
    assert (await client.poll(login)).json()["refresh_token"] == f"rt-{login.session_id}"
    assert (await client.poll(login)).json() == {"status": "used"}


async def test_two_versions_work_side_by_side(start_site: StartSite, next_version: dict[str, str]) -> None:
    """Both ways: API of one and worker of the other, then all together, with the scripts of both in Redis."""
    site = await start_site()
    service, old = site.service, site.service.workers[0]
    service.start_api(**next_version)
    await site.until_ready()
    clients = [site.client, Client(service.urls[1], site.client.project)]
    for client in clients:
        await logs_in(client, "old-worker")
    new = service.start_worker(**next_version)
    await site.until_ready()
    old.stop()
    for client in clients:
        await logs_in(client, "new-worker")
    old.send(SIGCONT)
    for number in range(10):
        for client in clients:
            await logs_in(client, f"both-{number}")
    await clients[1].http.aclose()
    assert old.is_running
    assert new.is_running
    assert "Traceback" not in service.output
    await wait_until(site.is_at_rest)


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forwards", "back"])
async def test_clock_that_is_set_decides_nothing(start_site: StartSite, tmp_path: Path, step: int) -> None:
    """API and worker are suddenly an hour wrong: sessions live and expire by Redis' time."""
    site = await start_site()
    service, clock = site.service, Clock(tmp_path)
    service.start_api(**clock.variables)
    service.start_worker(**clock.variables)
    await site.until_ready()
    service.workers[0].stop()
    client = Client(service.urls[1], site.client.project)
    before = await client.initiate()
    clock.set(step)

    async def is_set() -> bool:
        await client.poll(before)
        logged = re.findall(r'"timestamp": *"([^"]+)"', service.apis[1].output)
        return abs(datetime.fromisoformat(logged[-1]).timestamp() - time.time() - step) < 60

    await wait_until(is_set)
    short = await client.initiate(expires_in_millis=1_500)
    for login in (before, short):
        assert (await client.poll(login)).json() == {"status": "waiting"}
    after = (await client.http.post("/cli", headers=client.project.client_headers)).json()
    assert 800 < datetime.fromisoformat(after["expires_at"]).timestamp() - time.time() < 1_000
    await logs_in(client, "k")
    assert (await client.complete(before)).status_code == 200
    assert (await client.poll(before)).json()["refresh_token"] == f"rt-{before.session_id}"

    async def is_expired() -> bool:
        return await site.versions(short.session_id) == [("session.initiated", 1), ("session.expired", 2)]

    await wait_until(is_expired)
    assert (await client.poll(short)).json() == {"status": "expired"}
    await client.http.aclose()
