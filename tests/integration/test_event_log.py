import asyncio
import random
from collections.abc import AsyncIterator
from functools import partial

import msgspec
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from events.cursor import (
    START,
    Cursor,
    decode_cursor,
    encode_cursor,
    last_before,
)
from events.log import EventLog
from projects.audit import Refusals
from projects.audit_events import BindingFailed
from projects.store import Projects
from runtime.redis.connections import reader_client
from runtime.redis.keys import Keys
from runtime.settings import Settings
from statemachine.session import ClientFacts
from statemachine.store.initiating import Initiations
from tests.support.eventually import wait_until
from tests.support.relay import Relay

PARTITIONS = 4
PROJECT = "3f0d7c1e-59a4-4a53-9a8e-2f1f5a0c9f10"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Several partitions on the one Redis."""
    return msgspec.structs.replace(settings, partitions=PARTITIONS)


@pytest.fixture
def log(keys: Keys) -> EventLog:
    """The events of this test."""
    return EventLog(keys)


@pytest.fixture
async def reader(settings: Settings) -> AsyncIterator[Redis]:
    """A connection for blocking reads."""
    client = reader_client(settings, "login-relay:test-reader")
    yield client
    await client.aclose()


async def initiate(initiations: Initiations, count: int) -> list[str]:
    """Make events; returns the ids of their sessions."""
    return [(await initiations.initiate(PROJECT, ClientFacts("tool"), 60_000)).session_id for _ in range(count)]


async def test_reader_that_comes_and_goes_sees_every_event_once(
    log: EventLog, redis: Redis, initiations: Initiations
) -> None:
    """Four writers, four partitions; the reader stops after any event and continues from that event's cursor."""
    chance = random.Random(7)  # noqa: S311 - when to stop, and no secret
    writing = [asyncio.create_task(initiate(initiations, 100)) for _ in range(4)]
    told = []
    cursor = (START,) * PARTITIONS
    while True:
        written = all(task.done() for task in writing)
        batch = await log.read(redis, cursor)
        if not batch.events and written:
            break
        stop = chance.randint(0, len(batch.events))
        told += batch.events[:stop]
        if stop:
            text = encode_cursor(batch.events[stop - 1].cursor)
            resumed = decode_cursor(text, PARTITIONS)
            assert resumed is not None
            cursor = resumed
    expected = {session_id for task in writing for session_id in await task}
    assert len(told) == len(expected) == 400
    assert {event.event.subject for event in told} == expected
    assert {event.partition for event in told} == set(range(PARTITIONS))
    times = [event.entry_id.milliseconds for event in told]
    assert times == sorted(times)


async def test_backlog_is_read_in_bounded_pieces_and_in_order(
    log: EventLog, redis: Redis, keys: Keys, initiations: Initiations
) -> None:
    """One partition has far more entries than the others: no event overtakes, and no read exceeds its share."""
    await initiate(initiations, 8)
    [sample, *_] = (await log.read(redis, (START,) * PARTITIONS)).events
    fields = msgspec.structs.asdict(sample.event) | {"data": bytes(sample.event.data)}
    async with redis.pipeline(transaction=False) as pipeline:
        for _ in range(1_500):
            pipeline.execute_command("XADD", keys.events(2), "*", *(word for field in fields.items() for word in field))
        await pipeline.execute()
    await initiate(initiations, 8)
    cursor, sizes, told = (START,) * PARTITIONS, [], []
    complete = False
    while not complete:
        events, cursor, complete, entries = await log.read(redis, cursor)
        assert entries <= 1_024
        sizes.append(len(events))
        told += events
    assert len(told) == 1_516
    assert len(sizes) > 4
    assert max(sizes) <= 1_024
    ids = [(event.entry_id, event.partition) for event in told]
    assert ids == sorted(ids)


async def test_end_is_after_all_that_is_there(log: EventLog, redis: Redis, initiations: Initiations) -> None:
    """Whether or not a partition has entries, only what is written later is read."""
    assert await log.end(redis) == (START,) * PARTITIONS
    await initiate(initiations, 3)
    end = await log.end(redis)
    assert (await log.read(redis, end)).events == []
    later = await initiate(initiations, 5)
    assert sorted(event.event.subject for event in (await log.read(redis, end)).events) == sorted(later)


async def test_time_is_where_to_begin(log: EventLog, redis: Redis, initiations: Initiations) -> None:
    """The first event at or after a time is the first to be read."""
    await initiate(initiations, 20)
    everything = (await log.read(redis, (START,) * PARTITIONS)).events
    since = everything[12].entry_id.milliseconds
    cursor = await log.after(redis, last_before(since))
    assert await log.has_all_after(redis, cursor)
    told = (await log.read(redis, cursor)).events
    assert [event.entry_id for event in told] == [
        event.entry_id for event in everything if event.entry_id.milliseconds >= since
    ]


async def test_following_outlives_a_lost_connection(
    log: EventLog, redis: Redis, reader: Redis, initiations: Initiations
) -> None:
    """The connection is killed while it waits; events that are written meanwhile are read once."""
    told: list[str] = []
    troubles: list[str | None] = []

    async def follow(cursor: Cursor) -> None:
        def on_trouble(error: Exception | None) -> None:
            troubles.append(type(error).__name__ if error else None)

        async for batch in log.follow(reader, cursor, 1_000, on_trouble):
            told.extend(event.event.subject for event in batch.events)

    following = asyncio.create_task(follow(await log.end(redis)))
    written = []
    for lost in range(3):
        written += await initiate(initiations, 2)
        # Within a millisecond, events of different partitions have no order.
        await wait_until(partial(_same, told, written))
        assert len(troubles) == 2 * lost
        [reading] = [row["id"] for row in await redis.client_list() if row["name"] == "login-relay:test-reader"]
        assert await redis.execute_command("CLIENT", "KILL", "ID", reading) == 1
        written += await initiate(initiations, 2)
        await wait_until(partial(_same, told, written))
    following.cancel()
    assert troubles == ["ConnectionError", None] * 3


def _same(told: list[str], written: list[str]) -> bool:
    return sorted(told) == sorted(written)


async def test_every_entry_names_its_project(
    relay: Relay, projects: Projects, redis: Redis, keys: Keys, settings: Settings
) -> None:
    """As an attribute and in its data, whether a script wrote it or a command."""
    await projects.create("acme", allow_client_complete=False)
    session = await relay.completed()
    await relay.consume(session.session_id)
    await relay.work()
    refusals = Refusals(redis, keys, window_ms=settings.budget_window_ms, retention_ms=settings.retention_ms)
    await refusals.tell(BindingFailed(PROJECT, "192.0.2.1"), "cause", await relay.now())
    entries: list[dict[bytes, bytes]] = []
    for partition in keys.partitions:
        found = await redis.execute_command("XRANGE", keys.events(partition), "-", "+")
        entries += [fields for _, fields in found]
    assert {fields[b"type"] for fields in entries} == {
        *(b"session.initiated", b"session.completed", b"session.consumed"),
        *(b"audit.project_changed", b"audit.binding_failed"),
    }
    named = [fields[b"projectid"].decode() for fields in entries]
    assert named == [msgspec.json.decode(fields[b"data"])["project_id"] for fields in entries]
    assert len(set(named)) == 2


async def test_events_of_sessions_have_their_fields_in_one_order(relay: Relay, redis: Redis, keys: Keys) -> None:
    """Redis keeps the names once for entries that follow each other, if they are the same in the same order."""
    session = await relay.completed()
    await relay.consume(session.session_id)
    await relay.work()
    stream = keys.events(keys.partition_of(session.session_id))
    orders = [list(fields) for _, fields in await redis.execute_command("XRANGE", stream, "-", "+")]
    assert len(orders) == 3
    assert orders == [orders[0]] * 3


async def test_lost_events_are_told_from_kept_ones(
    log: EventLog, redis: Redis, keys: Keys, initiations: Initiations
) -> None:
    """A cursor is valid as long as every event after it is kept."""
    at_the_beginning = (START,) * PARTITIONS
    assert await log.has_all_after(redis, at_the_beginning)
    await initiate(initiations, 40)
    assert await log.has_all_after(redis, at_the_beginning)
    events = (await log.read(redis, at_the_beginning)).events
    early, end = events[20].cursor, events[-1].cursor
    for partition in range(PARTITIONS):
        await redis.xtrim(keys.events(partition), maxlen=1, approximate=False)
    assert not await log.has_all_after(redis, at_the_beginning)
    assert not await log.has_all_after(redis, early)
    assert await log.has_all_after(redis, end)


async def test_key_that_is_no_stream_is_an_error(log: EventLog, redis: Redis, keys: Keys) -> None:
    """It is not read as an empty log."""
    await redis.set(keys.events(1), "no stream", px=60_000)
    with pytest.raises(ResponseError):
        await log.has_all_after(redis, (START,) * PARTITIONS)
