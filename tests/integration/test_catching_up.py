import asyncio
from collections.abc import Container

import msgspec
import pytest
from redis.asyncio import Redis

from api.event_stream.catching_up import AT_ONCE, ENTRIES, CatchUps
from events.cursor import START, Cursor
from events.log import READ_ENTRIES, Batch, EventLog
from runtime.redis.keys import Keys
from runtime.settings import Settings
from statemachine.store.initiating import Initiations
from tests.support.event_log import write_events

PROJECTS = [f"{number:08}-59a4-4a53-9a8e-2f1f5a0c9f10" for number in range(10)]
OF_NEITHER = "99999999-59a4-4a53-9a8e-2f1f5a0c9f10"


class CountingLog(EventLog):
    """The log, which counts the reads and the entries that were read."""

    under_way = most_at_once = total = most_entries = 0

    async def read(
        self,
        redis: Redis,
        cursor: Cursor,
        block_ms: int | None = None,
        *,
        entries: int = READ_ENTRIES,
        projects: Container[str] | None = None,
    ) -> Batch:
        """Read, and count."""
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        batch = await super().read(redis, cursor, block_ms, entries=entries, projects=projects)
        self.under_way -= 1
        self.total += batch.entries
        self.most_entries = max(self.most_entries, batch.entries)
        return batch


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Two partitions."""
    return msgspec.structs.replace(settings, partitions=2)


@pytest.fixture
def log(keys: Keys) -> CountingLog:
    """The events of this test."""
    return CountingLog(keys)


async def catch_up(catch_ups: CatchUps, project_id: str) -> int:
    """Read all from the beginning, as a stream does; returns how many events of the project were read."""
    cursor: Cursor = (START, START)
    count, complete = 0, False
    while not complete:
        batch = await catch_ups.read(project_id, cursor)
        cursor, complete, count = batch.cursor, batch.complete, count + len(batch.events)
    return count


async def test_streams_that_catch_up_read_so_much_and_no_more(
    log: CountingLog, redis: Redis, keys: Keys, initiations: Initiations
) -> None:
    """Concurrent reads, entries per read and entries per second are limited over all; each stream gets its events."""
    await write_events(redis, keys, initiations, OF_NEITHER, 1_000)
    for project_id in PROJECTS:
        await write_events(redis, keys, initiations, project_id, 3)
    catch_ups = CatchUps(log, redis, per_second=40_000)
    began = asyncio.get_running_loop().time()
    found = await asyncio.gather(*(catch_up(catch_ups, project_id) for project_id in PROJECTS))
    took = asyncio.get_running_loop().time() - began
    assert found == [3] * len(PROJECTS)
    assert log.most_at_once == AT_ONCE
    assert log.most_entries <= ENTRIES
    assert log.total >= 10_000
    assert took > (log.total - (AT_ONCE + 1) * ENTRIES) / 40_000


async def test_project_with_many_streams_does_not_hold_up_another(
    log: CountingLog, redis: Redis, keys: Keys, initiations: Initiations
) -> None:
    """Thirty streams are far behind; another project's, as far behind, starts after them and finishes before them."""
    await write_events(redis, keys, initiations, OF_NEITHER, 2_000)
    catch_ups = CatchUps(log, redis)
    many = [asyncio.create_task(catch_up(catch_ups, PROJECTS[0])) for _ in range(30)]
    await asyncio.sleep(0)  # let them begin
    await catch_up(catch_ups, PROJECTS[1])
    assert [task for task in many if task.done()] == []
    for task in many:
        task.cancel()
    await asyncio.wait(many)


async def test_stream_that_leaves_gives_its_turn_to_the_next(
    log: CountingLog, redis: Redis, keys: Keys, initiations: Initiations
) -> None:
    """It leaves while it reads or while it waits; the next one is not blocked."""
    await write_events(redis, keys, initiations, PROJECTS[0], 1_000)
    catch_ups = CatchUps(log, redis)
    leaving = [asyncio.create_task(catch_up(catch_ups, project_id)) for project_id in PROJECTS for _ in range(5)]
    staying = asyncio.create_task(catch_up(catch_ups, PROJECTS[0]))
    await asyncio.sleep(0.01)
    for task in leaving:
        task.cancel()
    assert await asyncio.wait_for(staying, 5) == 1_000
