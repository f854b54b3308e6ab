"""Readers of events, whose Redis is killed while they read."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from runtime.settings import variable
from tests.support.eventually import wait_until
from tests.support.services import COMMAND
from tests.support.sites import OwnSite, StartSite, receives_its_token
from tests.support.sse import event_source

pytestmark = pytest.mark.faults

ROUNDS, LOGINS = 3, 8


@asynccontextmanager
async def following(site: OwnSite) -> AsyncIterator[list[str]]:
    """Run `login-relay events --follow` to the end of the context; yields the ids of what it prints."""
    settings = {"redis_url": site.redis.url, "prefix": site.keys.prefix, "partitions": str(len(site.keys.partitions))}
    process = await asyncio.create_subprocess_exec(
        *(COMMAND, "events", "--follow", "--json", "--from", "0-0", "--type", "session.initiated"),
        *(word for change in ("completed", "consumed") for word in ("--type", f"session.{change}")),
        env=os.environ | {variable(name): value for name, value in settings.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    ids: list[str] = []

    async def read() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            ids.append(json.loads(line)["id"])  # noqa: PERF401 - others look at the list while it grows

    reading = asyncio.create_task(read())
    try:
        yield ids
    finally:
        process.kill()
        await process.wait()
        await reading


async def test_readers_of_events_outlive_a_killed_redis(start_site: StartSite) -> None:
    """Killed and restarted on its data again and again: command and event stream return every event once, in order."""
    site = await start_site(partitions=4)
    expected: list[str] = []

    async def log_in() -> None:
        login = await site.client.initiate()

        async def is_completed() -> bool:
            return (await site.client.complete(login, key="k")).status_code == 200

        await wait_until(is_completed, within=20)
        await receives_its_token(site.client, login, key="k")
        expected.extend(f"{login.session_id}.{version}" for version in (1, 2, 3))

    async with following(site) as printed, event_source(site.service.url, site.client.project.server_headers) as source:
        await wait_until(lambda: source.last_event_id)
        for round_ in range(ROUNDS):
            if round_:
                site.redis.kill()
                await site.redis.start()
                await site.until_ready()
            await asyncio.gather(*(log_in() for _ in range(LOGINS)))
            await wait_until(lambda: len(printed) >= len(expected), within=20)
            await wait_until(lambda: len(source.received) >= len(expected), within=20)
        assert source.is_open
    for told in (printed, [item.event.id for item in source.received]):
        assert sorted(told) == sorted(expected)
        for session_id in {id_.partition(".")[0] for id_ in expected}:
            assert [id_ for id_ in told if id_.startswith(session_id)] == [f"{session_id}.{n}" for n in (1, 2, 3)]
