import asyncio

import pytest
from redis.asyncio import Redis

from runtime.codes import new_session_id
from runtime.redis.keys import Keys
from statemachine.commands import CompleteSession
from statemachine.lifecycle import Outcome, State
from statemachine.store.command_stream import Recorded
from tests.support.relay import PROJECT, SEALED, Relay
from worker.sweeper import COUNT, Sweeper


def sweeper_of(relay: Relay) -> Sweeper:
    """Return the sweeper of one worker."""
    return Sweeper(relay.sessions, relay.committing, relay.keys.partitions, relay.settings.pickup_window_ms)


async def overdue(relay: Relay, count: int) -> list[str]:
    """Start sessions and let their time pass."""
    initiated = [await relay.initiate(lifetime_ms=1) for _ in range(count)]
    await relay.pass_by(initiated[-1].expires_at)
    return [each.session_id for each in initiated]


@pytest.fixture
def sweeper(relay: Relay) -> Sweeper:
    """A sweeper of this test's sessions."""
    return sweeper_of(relay)


async def test_session_that_nobody_completed_expires(relay: Relay, sweeper: Sweeper, redis: Redis, keys: Keys) -> None:
    """Its state, its event and its place in the index all change; late polls find the session."""
    initiated = await relay.initiate(lifetime_ms=1)
    await relay.pass_by(initiated.expires_at)
    await sweeper.step()
    session = await relay.session(initiated.session_id)
    assert (session.state, session.version) == (State.EXPIRED, 2)
    event = (await relay.events(session.id))[-1]
    assert (event.type, event.version) == ("session.expired", 2)
    assert event.fields["data"] == f'{{"project_id":"{PROJECT}","state":"pending"}}'
    assert not await redis.exists(keys.deadlines(0))
    forgotten_at = initiated.expires_at + relay.settings.abandoned_retention_ms
    assert await redis.pexpiretime(keys.session(session.id)) == forgotten_at


async def test_token_that_nobody_picked_up_expires(relay: Relay, redis: Redis, keys: Keys) -> None:
    """A completed session ends with its pickup window, and its sealed token with it."""
    session_id = (await relay.completed(lifetime_ms=1_000)).session_id
    # As if it had been completed long ago: the sweeper goes by the stored deadline.
    deadline = await relay.now() - 1
    await redis.hset(keys.session(session_id), "deadline", str(deadline))
    await redis.zadd(keys.deadlines(0), {session_id: deadline})
    await sweeper_of(relay).step()
    assert (await relay.session(session_id)).state is State.EXPIRED
    assert '"state":"completed"' in (await relay.events(session_id))[-1].fields["data"]
    assert await relay.sessions.read_sealed_token(session_id) is None


async def test_session_in_its_time_is_left_alone(relay: Relay, sweeper: Sweeper) -> None:
    """Neither a pending session nor one within its pickup window is touched."""
    pending, completed = (await relay.initiate()).session_id, (await relay.completed(lifetime_ms=1_000)).session_id
    session = await relay.session(completed)
    await relay.pass_by(session.expires_at)
    await sweeper.step()
    assert (await relay.session(pending)).state is State.PENDING
    assert await relay.session(completed) == session
    # Past its `expires_at`, the completed one still hands over its token.
    assert await relay.consume(completed) == Recorded()
    await relay.work()
    assert await relay.outcome(completed, "consume") is Outcome.CONSUMED


async def test_ended_session_leaves_the_index(relay: Relay, redis: Redis, keys: Keys) -> None:
    """A consumed session is never looked at again."""
    session_id = (await relay.completed()).session_id
    assert await redis.zcard(keys.deadlines(0)) == 1
    await relay.consume(session_id)
    await relay.work()
    assert not await redis.exists(keys.deadlines(0))


async def test_session_that_is_gone_leaves_the_index(relay: Relay, sweeper: Sweeper, redis: Redis, keys: Keys) -> None:
    """An index that outlived its sessions empties itself."""
    await redis.zadd(keys.deadlines(0), {new_session_id(0): 1})
    await sweeper.step()
    assert not await redis.exists(keys.deadlines(0))
    assert await relay.backlog() == 0


async def test_session_that_cannot_be_read_holds_up_no_other(
    relay: Relay, sweeper: Sweeper, redis: Redis, keys: Keys
) -> None:
    """A session in a state of a later version is left to the workers of that version."""
    strange, sound = await overdue(relay, 2)
    await redis.hset(keys.session(strange), "state", "melted")
    await sweeper.step()
    assert await relay.states([sound]) == {State.EXPIRED}
    assert await redis.hget(keys.session(strange), "state") == b"melted"
    assert await redis.zscore(keys.deadlines(0), strange)


async def test_everything_due_is_expired_in_one_step(relay: Relay, sweeper: Sweeper, redis: Redis, keys: Keys) -> None:
    """Sessions beyond the size of one round do not wait for the next step."""
    ids = await overdue(relay, COUNT + 1)
    await sweeper.step()
    assert await relay.states(ids) == {State.EXPIRED}
    assert not await redis.exists(keys.deadlines(0))


async def test_sweepers_side_by_side_expire_each_session_once(relay: Relay) -> None:
    """No leader is needed: the second one finds the state changed."""
    ids = await overdue(relay, 20)
    await asyncio.gather(*(sweeper_of(relay).step() for _ in range(4)))
    for session_id in ids:
        assert await relay.facts(session_id) == [("session.initiated", 1), ("session.expired", 2)]


async def test_completion_decided_after_the_sweep_is_refused(relay: Relay, sweeper: Sweeper) -> None:
    """A command that was recorded in time but is decided too late cannot revive an expired session."""
    initiated = await relay.initiate(lifetime_ms=1)
    await relay.record(CompleteSession("slow", initiated.session_id, "api", SEALED))
    await relay.pass_by(initiated.expires_at)
    await sweeper.step()
    await relay.work()
    assert await relay.outcome(initiated.session_id, "slow") is Outcome.REFUSED
    assert (await relay.session(initiated.session_id)).state is State.EXPIRED


async def test_sweep_ends_when_redis_refuses_its_writes(own_relay: Relay) -> None:
    """Redis is not asked again and again within one step: the loop continues with its next round."""
    relay = own_relay
    ids = await overdue(relay, COUNT)
    await relay.redis.config_set("min-replicas-to-write", "1")
    await asyncio.wait_for(sweeper_of(relay).step(), timeout=3)
    await relay.redis.config_set("min-replicas-to-write", "0")
    await sweeper_of(relay).step()
    assert await relay.states(ids) == {State.EXPIRED}
