"""A worker whose event loop is blocked, as by a runaway computation, while its process lives."""

import asyncio
import os
import subprocess
import time
from pathlib import Path
from signal import SIGTERM, SIGUSR2

import pytest

from runtime.settings import variable
from tests.support.eventually import wait_until
from tests.support.services import COMMAND
from tests.support.sites import OwnSite, StartSite

pytestmark = pytest.mark.faults

STALL = 20.0  # seconds
NOTICED = 10.0  # seconds: twice the life of a sign of life


@pytest.fixture
def stallable(tmp_path: Path) -> dict[str, str]:
    """The variables of a process that computes for `STALL` seconds, in its loop's own thread, on SIGUSR2."""
    (tmp_path / "sitecustomize.py").write_text(
        "import signal, time\n"
        f"signal.signal(signal.SIGUSR2, lambda *_: (time.sleep({STALL}), print('stall over', flush=True)))\n"
    )
    return {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


async def is_alive(site: OwnSite) -> bool:
    """Whether `login-relay health worker` finds a worker of this machine alive."""
    environment = {
        **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
        variable("redis_url"): site.redis.url,
        variable("prefix"): site.service.settings.prefix,
    }
    health = (COMMAND, "health", "worker")
    done = await asyncio.to_thread(subprocess.run, health, env=environment, capture_output=True, check=False)
    return done.returncode == 0


async def test_worker_whose_loop_stalls_is_dead_until_it_goes_on(
    start_site: StartSite, stallable: dict[str, str]
) -> None:
    """Its health check fails and another worker takes its entry; its own commit of that entry has no effect."""
    site = await start_site(workers=0, through_proxy=False)
    service = site.service
    stalled = service.start_worker(**stallable)
    await site.until_ready()
    await site.client.completed()
    assert await is_alive(site)
    login = await site.client.initiate()
    stalled.send(SIGUSR2)
    began = time.monotonic()
    completing = asyncio.create_task(site.client.complete(login, key="k"))
    await wait_until(lambda: _has_died(site), within=NOTICED)
    assert (await site.look.xpending(site.keys.commands(0), "workers"))["pending"] == 1
    heir = service.start_worker()
    assert (await completing).status_code in {200, 503}
    while (await site.client.complete(login, key="k")).status_code == 503:
        pass
    assert time.monotonic() - began < STALL, "nobody took the entry over before the worker woke"
    assert (await site.client.poll(login)).json()["refresh_token"] == f"rt-{login.session_id}"
    heir.send(SIGTERM)
    assert await asyncio.to_thread(heir.wait) == 0
    await wait_until(lambda: "stall over" in stalled.output, within=STALL)
    await wait_until(lambda: is_alive(site), within=NOTICED)
    await site.client.completed()  # by the worker that woke, after its entries in hand
    assert (await site.client.complete(login, key="k")).status_code == 200
    assert await site.versions(login.session_id) == [
        ("session.initiated", 1),
        ("session.completed", 2),
        ("session.consumed", 3),
    ]
    assert await site.is_at_rest()
    assert "Traceback" not in service.output


async def _has_died(site: OwnSite) -> bool:
    return not await is_alive(site)
