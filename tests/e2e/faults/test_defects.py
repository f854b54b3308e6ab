"""Defects of our own in the loops of an API process: they are logged, and their effect ends when they do."""

import asyncio
import time
from pathlib import Path

import pytest

from api.logins.waiting import FALLBACK_PERIOD
from tests.support.eventually import wait_until
from tests.support.sites import Client, StartSite, change, copy_packages
from tests.support.sse import EventSource, event_source

pytestmark = pytest.mark.faults

WITHIN = 15.0  # seconds for a loop to start again
LOOPS = {
    "listen": ("logins/waiting.py", "        if channel in self._hints:\n"),
    "look up": ("logins/waiting.py", "                self._look_now.clear()\n"),
    "feed": ("event_stream/feed.py", "                    for logged in batch.events:\n"),
}
"""A line of each repeated loop; the defect is put before it."""


class Trouble:
    """The defects last from `begin` to `end`: as long as a file exists."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def begin(self) -> None:
        """Make the loops fail."""
        self.file.touch()

    def end(self) -> None:
        """Let them work."""
        self.file.unlink()


@pytest.fixture
def trouble(tmp_path: Path) -> Trouble:
    """No trouble yet."""
    return Trouble(tmp_path / "trouble")


@pytest.fixture
def defective(tmp_path: Path, trouble: Trouble) -> dict[str, str]:
    """Return the variables of a process whose loops have a defect each."""
    folder = tmp_path / "defective"
    variables = copy_packages(folder)
    for file, line in LOOPS.values():
        indent = " " * (len(line) - len(line.lstrip()))
        fail = f"{indent}if __import__('pathlib').Path({str(trouble.file)!r}).exists():\n{indent}    raise KeyError\n"
        change(folder / "api" / file, line, fail + line)
    return variables


async def log_in(client: Client, hold: int) -> float:
    """Log in with a held poll, or with a later one; returns the seconds from the completion to the token."""
    login = await client.initiate()
    held = asyncio.create_task(client.poll(login, wait=hold)) if hold else None
    await asyncio.sleep(0.1)  # it is most likely held by now; if not, the answer is the same
    assert (await client.complete(login)).status_code == 200
    completed = time.monotonic()
    answer = await (held or client.poll(login))
    assert answer.json() == {"status": "success", "refresh_token": f"rt-{login.session_id}"}
    return time.monotonic() - completed


async def test_loop_that_a_defect_ended_is_begun_again(
    start_site: StartSite, defective: dict[str, str], trouble: Trouble
) -> None:
    """While the defect lasts it is logged and logins take longer; afterwards hints and events come as before."""
    site = await start_site(through_proxy=False)
    api = site.service.start_api(**defective)
    await site.until_ready()
    url = site.service.urls[1]
    client = Client(url, site.client.project)
    async with event_source(url, client.project.server_headers) as source:
        await log_in(client, hold=20)
        await wait_until(lambda: _told(source, 3))
        trouble.begin()
        await log_in(client, hold=0)  # without messages, outcomes are read at the end of each wait
        await wait_until(lambda: all(f'"loop": "{loop}"' in api.output for loop in LOOPS), within=WITHIN)
        trouble.end()

        async def is_prompt() -> bool:
            return await log_in(client, hold=20) < FALLBACK_PERIOD / 2

        await wait_until(is_prompt, within=WITHIN)
        await wait_until(lambda: _told(source, 9), within=WITHIN)
    ids = [item.event.id for item in source.received]
    assert len(ids) == len(set(ids)), "an event was told twice"
    assert api.is_running
    await client.http.aclose()


def _told(source: EventSource, count: int) -> bool:
    return len(source.received) >= count
