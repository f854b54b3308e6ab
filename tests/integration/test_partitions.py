"""Partitions on two servers, one of which is frozen or gone: the sessions of the other one are not affected."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest
from redis.exceptions import ResponseError
from structlog.testing import capture_logs
from structlog.typing import EventDict

from api.logins.waiting import Answer, Waiting
from runtime.redis.connections import subscriber
from runtime.redis.keys import GROUP, Keys
from runtime.redis.partitions import EachPartition
from runtime.settings import Settings
from statemachine.lifecycle import Outcome, State
from statemachine.store.command_stream import CommandStream
from tests.support.eventually import wait_until
from tests.support.redis_process import RedisProcess
from tests.support.redis_server import free_port
from tests.support.relay import LIFETIME_MS, Relay
from tests.support.two_servers import TwoServers
from worker.reclaimer import Reclaimer
from worker.sweeper import Sweeper

PROMPTLY = 1.0  # seconds; twice the patience, half of what a command may take
SOON = 20.0  # seconds; requests to a frozen server are repeated for some of them
PERIOD = 0.1  # seconds between two look-ups

ONCE = [("session.initiated", 1), ("session.completed", 2)]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Two partitions."""
    return msgspec.structs.replace(settings, partitions=2)


@pytest.fixture
async def relay(two_servers: TwoServers, keys: Keys, settings: Settings) -> Relay:
    """A relay whose partition 1 is on the second server."""
    stream = CommandStream(two_servers, keys)
    await stream.ensure_groups()
    return Relay(two_servers, keys, settings, stream)


def reclaimer_of(relay: Relay, name: str = "heir") -> "contextlib.aclosing[Reclaimer]":
    """Return the reclaimer of a worker."""
    partitions = relay.keys.partitions
    return contextlib.aclosing(
        Reclaimer(relay.stream, relay.handlers, name, partitions, min_idle_ms=0, max_deliveries=5)
    )


def sweeper_of(relay: Relay) -> "contextlib.aclosing[Sweeper]":
    """Return the sweeper of a worker."""
    return contextlib.aclosing(
        Sweeper(relay.sessions, relay.committing, relay.keys.partitions, relay.settings.pickup_window_ms)
    )


async def one_in_each_partition(relay: Relay, lifetime_ms: int = LIFETIME_MS) -> list[str]:
    """Start sessions until there is one in each partition."""
    found: dict[int, str] = {}
    while len(found) < len(relay.keys.partitions):
        session_id = (await relay.initiate(lifetime_ms)).session_id
        found[relay.keys.partition_of(session_id)] = session_id
    return [found[partition] for partition in relay.keys.partitions]


async def left_by_a_dead_worker(relay: Relay) -> list[str]:
    """Return a session of each partition whose completion was read by a worker that then died."""
    session_ids = await one_in_each_partition(relay)
    for partition, session_id in enumerate(session_ids):
        await relay.complete(session_id)
        await relay.redis.execute_command(
            "XREADGROUP", "GROUP", GROUP, "dead", "STREAMS", relay.keys.commands(partition), ">"
        )
    return session_ids


async def promptly(step: Callable[[], Awaitable[None]]) -> None:
    """Take a step and fail if it took too long; it is not interrupted."""
    started = time.monotonic()
    await step()
    assert time.monotonic() - started < PROMPTLY


def by_steps(step: Callable[[], Awaitable[None]], relay: Relay, session_id: str, state: State) -> Awaitable[bool]:
    """Take steps until a session is in a state."""

    async def is_there() -> bool:
        await step()
        return await relay.states([session_id]) == {state}

    return wait_until(is_there, SOON)


def told(logs: list[EventDict], loop: str) -> list[tuple[str, list[int]]]:
    """Return the log lines of a loop about its partitions."""
    return [(log["event"], log["partitions"]) for log in logs if log.get("loop") == loop]


async def test_entries_are_taken_over_while_another_partition_stands_still(
    relay: Relay, second_server: RedisProcess
) -> None:
    """The other one's entries too, once its server goes on; each is decided once."""
    here, there = await left_by_a_dead_worker(relay)
    async with reclaimer_of(relay) as reclaimer:
        second_server.freeze()
        await promptly(reclaimer.step)
        assert await relay.states([here]) == {State.COMPLETED}
        await promptly(reclaimer.step)
        second_server.thaw()
        await by_steps(reclaimer.step, relay, there, State.COMPLETED)
    assert await relay.facts(here) == await relay.facts(there) == ONCE


async def test_entry_whose_claim_lost_its_reply_is_claimed_again(relay: Relay, second_server: RedisProcess) -> None:
    """A worker that stops abandons its claim; Redis executes it all the same, and the next worker takes over."""
    _, there = await left_by_a_dead_worker(relay)
    async with reclaimer_of(relay, "leaving") as reclaimer:
        second_server.freeze()
        await promptly(reclaimer.step)
    second_server.thaw()

    async def is_claimed() -> bool:
        rows = await relay.redis.xpending_range(relay.keys.commands(1), GROUP, "-", "+", 10)
        return [row["consumer"] for row in rows] == [b"leaving"]

    await wait_until(is_claimed, SOON)
    async with reclaimer_of(relay) as reclaimer:
        await by_steps(reclaimer.step, relay, there, State.COMPLETED)
    assert await relay.facts(there) == ONCE


async def test_what_is_given_up_mixes_up_no_replies(two_servers: TwoServers, second_server: RedisProcess) -> None:
    """A cancelled command, among those of other tasks, or pipeline leaves every later reply to its owner."""
    client = two_servers.second

    async def echo_together(words: list[str]) -> list[bytes]:
        async with client.pipeline(transaction=False) as pipeline:
            for word in words:
                pipeline.execute_command("ECHO", word)
            replies: list[bytes] = await pipeline.execute()
            return replies

    async def ask(partition: int) -> None:
        if partition == 1:
            await asyncio.gather(client.execute_command("ECHO", "given up"), echo_together(["given up", "too"]))

    await echo_together(["a connection to begin with"])
    async with contextlib.aclosing(EachPartition("test", ask, range(2))) as asking:
        second_server.freeze()
        others = [asyncio.create_task(client.execute_command("ECHO", str(n))) for n in range(10)]
        await promptly(asking.step)
    second_server.thaw()
    assert await asyncio.gather(*others) == [str(n).encode() for n in range(10)]
    assert await asyncio.gather(*(echo_together([str(n)]) for n in range(10))) == [[b"%d" % n] for n in range(10)]


async def test_sessions_expire_while_another_partition_stands_still(relay: Relay, second_server: RedisProcess) -> None:
    """The other one's sessions too, once its server goes on."""
    here, there = await one_in_each_partition(relay, lifetime_ms=1)
    await relay.pass_by(max([(await relay.session(session_id)).deadline for session_id in (here, there)]))
    async with sweeper_of(relay) as sweeper:
        second_server.freeze()
        await promptly(sweeper.step)
        assert await relay.states([here]) == {State.EXPIRED}
        await promptly(sweeper.step)
        second_server.thaw()
        await by_steps(sweeper.step, relay, there, State.EXPIRED)


async def test_groups_are_made_while_another_partition_stands_still(
    two_servers: TwoServers, keys: Keys, second_server: RedisProcess
) -> None:
    """A worker starts with the partitions that answer; the other one's group is made once its server goes on."""
    second_server.freeze()
    await promptly(CommandStream(two_servers, keys).ensure_groups)
    assert len(await two_servers.xinfo_groups(keys.commands(0))) == 1
    second_server.thaw()

    async def is_made() -> bool:
        return await two_servers.exists(keys.commands(1)) == 1

    await wait_until(is_made, SOON)


@pytest.fixture
async def deaf(relay: Relay, settings: Settings) -> AsyncIterator[Waiting]:
    """The waiters of an API process that receives no message."""
    nowhere = msgspec.structs.replace(settings, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    waiting = Waiting(subscriber(nowhere, "login-relay:test"), relay.sessions, relay.keys, "api", period=PERIOD)
    task = asyncio.create_task(waiting.run())
    yield waiting
    while not task.done():  # a cancellation can be lost: see api.app
        task.cancel()
        await asyncio.wait({task}, timeout=1)


async def test_outcomes_are_looked_up_while_another_partition_stands_still(
    relay: Relay, deaf: Waiting, second_server: RedisProcess
) -> None:
    """Also for requests that begin to wait during the look-up of the other one, which ends once its server goes on."""
    here, there = await one_in_each_partition(relay)

    async def set_outcome(partition: int) -> None:
        await relay.redis.set(relay.keys.outcome(partition, "command"), Outcome.COMPLETED, px=60_000)

    with deaf.for_outcome(1, "command") as late, deaf.for_change(there):
        second_server.freeze()
        await asyncio.sleep(2 * PERIOD)  # a look-up waits for the frozen server
        with deaf.for_outcome(0, "command") as outcome:
            await set_outcome(0)
            assert await asyncio.wait_for(outcome, PROMPTLY) == Answer(Outcome.COMPLETED)
        with deaf.for_change(here) as change:
            await relay.redis.hset(relay.keys.session(here), "state", State.EXPIRED)
            await asyncio.wait_for(change, PROMPTLY)
        second_server.thaw()
        await set_outcome(1)
        assert await asyncio.wait_for(late, SOON) == Answer(Outcome.COMPLETED)


async def test_loss_of_a_partition_is_logged_once_until_it_is_back(relay: Relay, second_server: RedisProcess) -> None:
    """Each loop logs one line when a server is gone and one when it is back; work on the other server goes on."""
    here, there = await left_by_a_dead_worker(relay)
    async with reclaimer_of(relay) as reclaimer, sweeper_of(relay) as sweeper:
        second_server.kill()
        with capture_logs() as logs:
            await by_steps(reclaimer.step, relay, here, State.COMPLETED)
            for _ in range(3):
                await reclaimer.step()
                await sweeper.step()
            lost = [("partitions lost", [1])]
            await wait_until(lambda: told(logs, "reclaimer") == told(logs, "sweeper") == lost, SOON)
            assert all(log["reasons"] == ["ConnectionError"] for log in logs if log["event"] == "partitions lost")
            await second_server.start()
            await by_steps(reclaimer.step, relay, there, State.COMPLETED)
            await sweeper.step()
    back = [*lost, ("partitions back", [1])]
    assert told(logs, "reclaimer") == told(logs, "sweeper") == back


async def test_partition_that_redis_refuses_is_repaired_by_itself(relay: Relay) -> None:
    """An error of the first partition does not stop the second, and its group is made again as soon as possible."""
    _, there = await left_by_a_dead_worker(relay)
    await relay.redis.delete(relay.keys.commands(0))
    await relay.redis.set(relay.keys.commands(0), "no stream", px=60_000)
    async with reclaimer_of(relay) as reclaimer:
        with capture_logs() as logs:
            await reclaimer.step()
            assert await relay.states([there]) == {State.COMPLETED}
            await reclaimer.step()
            await relay.redis.delete(relay.keys.commands(0))
            await reclaimer.step()
    assert told(logs, "reclaimer") == [("partitions lost", [0]), ("partitions back", [0])]
    [line] = [log for log in logs if log["event"] == "partitions lost"]
    assert line["reasons"] == ["WRONGTYPE"]
    assert len(await relay.redis.xinfo_groups(relay.keys.commands(0))) == 1


async def test_error_of_every_partition_is_the_loops_own(relay: Relay) -> None:
    """The step logs nothing: the loop logs the error, and backs off."""
    for partition in relay.keys.partitions:
        await relay.redis.delete(relay.keys.commands(partition))
    async with reclaimer_of(relay) as reclaimer:
        with capture_logs() as logs, pytest.raises(ResponseError, match="NOGROUP"):
            await reclaimer.step()
        assert logs == []
        await relay.stream.ensure_groups()
        await reclaimer.step()
