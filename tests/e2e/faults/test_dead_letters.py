"""Entries that no worker can decide, from the stream to the operator's terminal."""

import asyncio
import json
import os
import subprocess
from typing import Any

import pytest

from runtime.settings import variable
from tests.support.eventually import wait_until
from tests.support.services import COMMAND
from tests.support.sites import OwnSite, StartSite

pytestmark = pytest.mark.faults

QUICKLY: dict[str, Any] = {"min_idle_ms": 100, "reclaim_period_ms": 50, "outcome_wait_ms": 4_000}
DELIVERIES = 5


async def cli(site: OwnSite, *arguments: str) -> str:
    """Run `login-relay dead-letters …` on the site's Redis; returns what it printed."""
    settings = {"redis_url": site.redis.url, "prefix": site.service.settings.prefix}
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")} | {
        variable(name): value for name, value in settings.items()
    }
    done = await asyncio.to_thread(
        subprocess.run,
        (COMMAND, "dead-letters", *arguments),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return str(done.stdout)


async def listed(site: OwnSite) -> dict[str, dict[str, object]]:
    """Return the dead letters by the id of their entries."""
    letters = [json.loads(line) for line in (await cli(site, "list", "--json")).splitlines()]
    return {letter["entry"]: letter for letter in letters}


async def record(site: OwnSite, command: bytes) -> str:
    """Put something on the stream; returns its entry's id."""
    entry: bytes = await site.look.execute_command("XADD", site.keys.commands(0), "*", "command", command)
    return entry.decode()


async def has_dead_letters(site: OwnSite, count: int) -> bool:
    """Return whether that many entries are dead letters."""
    return int(await site.look.xlen(site.keys.dead_letters(0))) == count


async def test_entries_that_nobody_can_decide_end_as_dead_letters_and_hold_up_no_other(start_site: StartSite) -> None:
    """Undecodable bytes, an unknown type and a handler that raises: listed with reason and deliveries; others go on."""
    site = await start_site(workers=2, **QUICKLY)
    broken = await site.client.initiate()
    await site.look.hset(site.keys.session(broken.session_id), "version", "no number")
    undecodable = await record(site, b"\xff\x00")
    unknown = json.dumps({"type": "RetireSession", "id": "1", "session_id": broken.session_id, "reply_to": "api"})
    stranger = await record(site, unknown.encode())
    completing = asyncio.create_task(site.client.complete(broken))
    logins = [await site.client.completed() for _ in range(10)]
    for login in logins:
        assert (await site.client.poll(login)).json()["refresh_token"] == f"rt-{login.session_id}"
    await wait_until(lambda: has_dead_letters(site, 3))
    letters = await listed(site)
    reasons = {entry: str(letter["reason"]) for entry, letter in letters.items()}
    assert reasons.pop(undecodable).startswith("undecodable")
    assert "RetireSession" in reasons.pop(stranger)
    [reason] = reasons.values()
    assert reason.startswith("handler failed")
    assert {letter["deliveries"] for letter in letters.values()} == {DELIVERIES}
    assert (await completing).status_code == 503
    await wait_until(site.is_at_rest)


async def test_dead_letter_is_replayed_once_its_cause_is_mended(start_site: StartSite) -> None:
    """The command is decided as if it were new; a dropped one is gone."""
    site = await start_site(**QUICKLY)
    login = await site.client.initiate()
    key = site.keys.session(login.session_id)
    await site.look.hset(key, "version", "no number")
    completing = asyncio.create_task(site.client.complete(login, key="k"))
    await record(site, b"\xff")
    await wait_until(lambda: has_dead_letters(site, 2))
    assert (await completing).status_code == 503
    await site.look.hset(key, "version", "1")
    for letter in (await listed(site)).values():
        await cli(site, "replay" if letter["command"] else "drop", str(letter["id"]))

    async def is_completed() -> bool:
        return (await site.client.complete(login, key="k")).status_code == 200

    await wait_until(is_completed)
    assert (await site.client.poll(login)).json()["refresh_token"] == f"rt-{login.session_id}"
    assert await has_dead_letters(site, 0)
