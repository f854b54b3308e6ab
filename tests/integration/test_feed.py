import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import msgspec
import pytest
from litestar.types import HTTPDisconnectEvent, Message
from redis.asyncio import Redis

from api.event_stream.catching_up import PER_SECOND
from api.event_stream.feed import MAX_WAITING, Feed, encode_frame
from api.event_stream.stream import HEARTBEAT_PERIOD, EventStream
from api.stack.events import EventStreamResponse
from events.cursor import START, decode_cursor, encode_cursor
from events.log import EventLog, LoggedEvent
from runtime.redis.connections import reader_client
from runtime.redis.keys import Keys
from runtime.settings import Settings
from statemachine.session import ClientFacts
from statemachine.store.initiating import Initiations
from tests.support.event_log import write_events
from tests.support.eventually import wait_until

OURS = "3f0d7c1e-59a4-4a53-9a8e-2f1f5a0c9f10"
THEIRS = "77777777-59a4-4a53-9a8e-2f1f5a0c9f10"
SOMEBODYS = "99999999-59a4-4a53-9a8e-2f1f5a0c9f10"
BEGINNING = encode_cursor((START, START))
"""An id from which the whole log is read."""


class Client(NamedTuple):
    """The far end of one stream."""

    chunks: list[bytes]
    """The chunks that were sent to it; an empty one ends the answer."""
    serving: asyncio.Task[None]

    @property
    def last_event_id(self) -> str:
        """The id to continue from."""
        ids = [line for chunk in self.chunks for line in chunk.decode().splitlines() if line.startswith("id: ")]
        return ids[-1].removeprefix("id: ")

    def count(self, text: str) -> int:
        """Return how often a text was received."""
        return b"".join(self.chunks).count(text.encode())


Connect = Callable[..., Awaitable[Client]]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Two partitions."""
    return msgspec.structs.replace(settings, partitions=2)


@pytest.fixture
def missed_per_second() -> float:
    """The number of entries that streams may read per second while they catch up."""
    return PER_SECOND


@pytest.fixture
async def feed(settings: Settings, redis: Redis, keys: Keys, missed_per_second: float) -> AsyncIterator[Feed]:
    """The feed of a process, running."""
    async with reader_client(settings, "login-relay:test-feed") as reader:
        feed = Feed(EventLog(keys), redis, reader, block_ms=200, missed_per_second=missed_per_second)
        running = asyncio.create_task(feed.run())
        yield feed
        while not running.done():  # a cancellation can be lost: see api.app
            running.cancel()
            await asyncio.wait({running}, timeout=1)


@pytest.fixture
async def connect(feed: Feed) -> AsyncIterator[Connect]:
    """Serve a client that reads until it has `reads` chunks, and then reads no more."""
    clients = []

    async def serve(
        last_event_id: str = "",
        project_id: str = OURS,
        reads: int = 1_000_000,
        allowed: Callable[[], bool] = lambda: True,
        heartbeat_period: float = HEARTBEAT_PERIOD,
    ) -> Client:
        async def still_allowed() -> bool:
            return allowed()

        cursor = await feed.start(project_id, last_event_id.encode())
        stream = EventStream(feed, project_id, cursor, still_allowed, heartbeat_period=heartbeat_period)
        chunks: list[bytes] = []

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body":
                if len(chunks) == reads:
                    await asyncio.Event().wait()  # as a server's send does when its buffers are full
                chunks.append(message["body"])

        async def receive() -> HTTPDisconnectEvent:
            await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        response = EventStreamResponse(feed, stream)
        clients.append(Client(chunks, asyncio.create_task(response.send_body(send, receive))))
        await wait_until(lambda: chunks)
        return clients[-1]

    yield serve
    for client in clients:
        client.serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await client.serving


async def initiate(initiations: Initiations, project_id: str = OURS, count: int = 1) -> None:
    """Make events."""
    for _ in range(count):
        await initiations.initiate(project_id, ClientFacts(), 60_000)


async def test_heartbeat_moves_the_last_id_past_other_projects_events(
    connect: Connect, initiations: Initiations, redis: Redis, keys: Keys
) -> None:
    """The client of a quiet project can still reconnect when its last event has been trimmed."""
    client = await connect(heartbeat_period=0.1)
    await initiate(initiations)
    await wait_until(lambda: client.count("session.initiated") >= 1)
    await initiate(initiations, THEIRS, 20)
    end = await EventLog(keys).end(redis)
    await wait_until(lambda: decode_cursor(client.last_event_id, 2) == end)
    assert client.count(": heartbeat") >= 1
    assert client.count("event: ") == 1
    for partition in keys.partitions:
        await redis.xtrim(keys.events(partition), maxlen=1, approximate=False)
    again = await connect(client.last_event_id)
    await initiate(initiations)
    await wait_until(lambda: again.count("event: ") == 1)


async def test_stream_ends_when_its_key_is_revoked(connect: Connect) -> None:
    """A stream lives for days: its key is checked again with every heartbeat."""
    allowed = True
    client = await connect(allowed=lambda: allowed, heartbeat_period=0.05)
    await wait_until(lambda: client.count(": heartbeat") >= 2)
    allowed = False
    await wait_until(client.serving.done)
    assert client.chunks[-1] == b""


async def test_busy_stream_has_heartbeats_too(connect: Connect, initiations: Initiations) -> None:
    """A steady flow of events does not put off the check of its key."""
    client = await connect(heartbeat_period=0.05)
    while client.count(": heartbeat") < 3:
        await initiate(initiations, count=5)
    assert client.count("event: ") > 5


async def test_client_that_does_not_read_is_dropped(
    connect: Connect, initiations: Initiations, redis: Redis, keys: Keys
) -> None:
    """A send that never returns is cancelled once the queue is full, and other clients get every event."""
    await initiate(initiations)
    [entry] = [entry for key in map(keys.events, keys.partitions) for entry in await redis.xrange(key) or ()]
    words = [word for field in (entry[1] or {}).items() for word in field]
    slow, fast = await connect(reads=1), await connect()
    for _ in range(5):
        async with redis.pipeline(transaction=False) as pipeline:
            for _ in range(1_000):
                pipeline.execute_command("XADD", keys.events(1), "*", *words)
            await pipeline.execute()
    await wait_until(slow.serving.done)
    assert len(slow.chunks) == 1
    await wait_until(lambda: fast.count("event: ") == 5_000)
    assert not fast.serving.done()
    assert MAX_WAITING < 5_000


async def test_client_is_told_what_came_while_nobody_listened(
    connect: Connect, initiations: Initiations, redis: Redis
) -> None:
    """The feed stops reading without clients; neither a client that returns nor a new one misses an event."""
    first = await connect()
    await initiate(initiations)
    await wait_until(lambda: first.count("event: ") == 1)
    first.serving.cancel()

    async def rests() -> bool:
        [reader] = [row for row in await redis.client_list() if row["name"] == "login-relay:test-feed"]
        return int(reader["idle"]) >= 2  # seconds, rounded up at worst: more than one blocking read

    await wait_until(rests)
    await initiate(initiations, count=5)
    back, new = await connect(first.last_event_id), await connect()
    await initiate(initiations, count=2)
    await wait_until(lambda: back.count("event: ") == 7)
    await wait_until(lambda: new.count("event: ") == 2)


async def test_draining_ends_streams_read_or_not(connect: Connect, initiations: Initiations, feed: Feed) -> None:
    """A stream that is read ends cleanly, one that is not is cut, and a later one receives no event."""
    reads, stuck = await connect(), await connect(reads=1)
    await initiate(initiations)
    await wait_until(lambda: reads.count("event: ") == 1)
    feed.drain()
    await wait_until(reads.serving.done)
    await wait_until(stuck.serving.done)
    assert reads.chunks[-1] == b""
    assert stuck.chunks[-1] != b""
    late = await connect()
    await wait_until(late.serving.done)
    assert late.count("event: ") == 0


async def test_stream_that_catches_up_far_behind_hears_everything_once(
    connect: Connect, initiations: Initiations
) -> None:
    """New events arrive while it reads old ones; it receives each of both exactly once."""
    await initiate(initiations)
    begin = await connect()
    start = begin.last_event_id
    writing = [asyncio.create_task(initiate(initiations, project, 150)) for project in (OURS, THEIRS, OURS)]
    clients = []
    while not all(task.done() for task in writing):
        clients.append(await connect(start))
    for client in [begin, *clients]:
        await wait_until(lambda: client.count("event: ") >= 300)  # noqa: B023 - awaited in the same round
        ids = [line for line in b"".join(client.chunks).decode().splitlines() if '"subject":' in line]
        assert len(ids) == len(set(ids)) == 300


@pytest.mark.parametrize("missed_per_second", [4_000])
async def test_stream_that_catches_up_for_long_has_heartbeats(
    connect: Connect, initiations: Initiations, redis: Redis, keys: Keys
) -> None:
    """Each has a newer id, so that a client that is cut off has made progress; and the key is checked."""
    await write_events(redis, keys, initiations, SOMEBODYS, 4_000)
    await initiate(initiations)
    allowed = True
    client = await connect(BEGINNING, heartbeat_period=0.15)
    revoked = await connect(BEGINNING, THEIRS, heartbeat_period=0.15, allowed=lambda: allowed)
    await wait_until(lambda: revoked.count(": heartbeat") >= 2)
    allowed = False
    await wait_until(revoked.serving.done)
    assert revoked.chunks[-1] == b""
    await wait_until(lambda: client.count("event: ") == 1)
    before = b"".join(client.chunks).partition(b"event: ")[0].decode()
    ids = [line for line in before.splitlines() if line.startswith("id: ")]
    assert len(set(ids)) > 3
    assert client.count("event: ") == 1


async def test_id_of_an_event_never_falls_behind_what_its_client_has(
    feed: Feed, redis: Redis, keys: Keys, initiations: Initiations
) -> None:
    """A stream that had read a partition further than the feed would have its client receive that again."""
    log = EventLog(keys)
    events: list[LoggedEvent] = []
    while len({event.partition for event in events}) < 2:
        await initiate(initiations)
        events = (await log.read(redis, (START,) * 2)).events
    late = events[-1]
    early = next(event for event in events if event.partition != late.partition)
    for partition in keys.partitions:
        await redis.xtrim(keys.events(partition), maxlen=0)
    position = [START, START]
    position[late.partition] = late.entry_id
    stream = EventStream(feed, OURS, tuple(position), always)
    chunks = stream.chunks()
    await anext(chunks)
    stream.inbox.offer(encode_frame(early))
    [id_] = [line for line in (await anext(chunks)).decode().splitlines() if line.startswith("id: ")]
    position[early.partition] = early.entry_id
    assert decode_cursor(id_.removeprefix("id: "), 2) == tuple(position)
    await chunks.aclose()


async def always() -> bool:
    """Return that the client's key is valid."""
    return True
