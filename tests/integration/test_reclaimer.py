import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from runtime.redis.keys import Keys
from statemachine.commands import ConsumeSession, encode_command
from statemachine.lifecycle import Outcome, State
from tests.support.eventually import wait_until
from tests.support.relay import Relay
from worker.reclaimer import COUNT, Reclaimer

MIN_IDLE_MS = 60_000
MAX_DELIVERIES = 3
DEAD = 200
AT_ONCE = {"forget_period": 0, "forget_after_ms": -1}
"""Periods with which every step forgets consumers, even those that were active just now."""


def reclaimer_of(relay: Relay, min_idle_ms: int = 0, **periods: int) -> Reclaimer:
    """Return the reclaimer of another worker."""
    return Reclaimer(
        relay.stream,
        relay.handlers,
        "heir",
        relay.keys.partitions,
        min_idle_ms=min_idle_ms,
        max_deliveries=MAX_DELIVERIES,
        **periods,
    )


async def letters(relay: Relay) -> list[dict[bytes, bytes]]:
    """Return the dead letters."""
    entries = await relay.redis.execute_command("XRANGE", relay.keys.dead_letters(0), "-", "+")
    return [fields for _, fields in entries]


async def test_entry_is_reclaimed_when_its_worker_dies_before_commit(relay: Relay) -> None:
    """Another worker decides what a dead worker had read, once."""
    session_id = (await relay.initiate()).session_id
    await relay.complete(session_id)
    assert await relay.read("dead")
    await reclaimer_of(relay).step()
    assert await relay.outcome(session_id, "complete") is Outcome.COMPLETED
    assert await relay.facts(session_id) == [("session.initiated", 1), ("session.completed", 2)]
    assert (await relay.backlog(), await relay.pending()) == (0, 0)


async def test_entry_of_a_live_worker_is_left_to_it(relay: Relay) -> None:
    """An entry that has not been idle for long enough is not claimed."""
    session_id = (await relay.initiate()).session_id
    await relay.complete(session_id)
    entries = await relay.read("slow")
    await reclaimer_of(relay, MIN_IDLE_MS).step()
    assert await relay.states([session_id]) == {State.PENDING}
    assert not await relay.handlers.handle(entries)
    assert await relay.outcome(session_id, "complete") is Outcome.COMPLETED


async def test_idle_entry_behind_many_fresh_ones_is_reached(relay: Relay) -> None:
    """A claim scans at most a thousand pending entries; the next one continues where it ended."""
    session_id = (await relay.initiate()).session_id
    data = encode_command(ConsumeSession("x", session_id, "api", 4_000))
    async with relay.redis.pipeline(transaction=False) as pipeline:
        for _ in range(10 * COUNT + 1):
            pipeline.execute_command("XADD", relay.keys.commands(0), "*", "command", data)
        await pipeline.execute()
    await relay.complete(session_id, backlog_limit=2_000)
    await relay.read("busy", count=10 * COUNT + 1)
    await relay.read("dead")
    await relay.stream.hand_back(0, "dead")
    reclaimer = reclaimer_of(relay, MIN_IDLE_MS)
    await reclaimer.step()
    assert await relay.outcome(session_id, "complete") is Outcome.PENDING
    await reclaimer.step()
    assert await relay.outcome(session_id, "complete") is Outcome.COMPLETED


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xffrubbish", b"undecodable: "),
        (b'{"type":"MeltSession","id":"c","session_id":"s","reply_to":"a"}', b"undecodable: "),
        (encode_command(ConsumeSession("x", "no session", "api", 1)), b"names no session"),
    ],
    ids=["not_json", "unknown_type", "no_session"],
)
async def test_entry_that_nobody_can_decide_goes_to_the_dead_letters(relay: Relay, data: bytes, reason: bytes) -> None:
    """It is tried as often as the setting says, by any workers, and then moved unchanged."""
    await relay.record(data)
    [entry] = await relay.read("first")
    reclaimer = reclaimer_of(relay)
    for _ in range(MAX_DELIVERIES - 2):
        await reclaimer.step()
        assert (await relay.pending(), await letters(relay)) == (1, [])
    with capture_logs() as logs:
        await reclaimer.step()
    assert (await relay.backlog(), await relay.pending()) == (0, 0)
    [letter] = await letters(relay)
    assert (letter[b"command"], letter[b"entry"]) == (data, entry.id.encode())
    assert letter[b"reason"].startswith(reason)
    assert letter[b"deliveries"] == b"%d" % MAX_DELIVERIES
    assert ("entry moved to the dead letters", entry.id) in [(log["event"], log.get("entry")) for log in logs]


async def test_entry_of_an_unreadable_session_goes_to_the_dead_letters(relay: Relay, redis: Redis, keys: Keys) -> None:
    """No number of tries can decide on its session, which is left as it is."""
    session_id = (await relay.initiate()).session_id
    await relay.complete(session_id)
    await redis.hset(keys.session(session_id), "state", "melted")
    await relay.read("first")
    reclaimer = reclaimer_of(relay)
    for _ in range(MAX_DELIVERIES):
        await reclaimer.step()
    [letter] = await letters(relay)
    assert letter[b"reason"] == b"handler failed: UnreadableSessionError"
    assert await redis.hget(keys.session(session_id), "state") == b"melted"


async def test_sound_entry_is_decided_however_often_it_was_delivered(relay: Relay) -> None:
    """It is not the entry's fault that its workers died or Redis was away."""
    session_id = (await relay.initiate()).session_id
    await relay.complete(session_id)
    await relay.read("first")
    for number in range(3 * MAX_DELIVERIES):
        await relay.stream.claim(0, f"dies-{number}", 0, "0-0", 10)
    await reclaimer_of(relay).step()
    assert await relay.outcome(session_id, "complete") is Outcome.COMPLETED
    assert await letters(relay) == []


async def test_entry_that_redis_refuses_to_commit_never_becomes_a_dead_letter(own_relay: Relay) -> None:
    """It is tried again until Redis accepts it, as when its user may not run scripts."""
    session_id = (await own_relay.initiate()).session_id
    await own_relay.complete(session_id)
    await own_relay.read("first")
    await own_relay.redis.execute_command("ACL", "SETUSER", "default", "-evalsha")
    reclaimer = reclaimer_of(own_relay)
    for _ in range(2 * MAX_DELIVERIES):
        await reclaimer.step()
    assert (await own_relay.pending(), await letters(own_relay)) == (1, [])
    await own_relay.redis.execute_command("ACL", "SETUSER", "default", "+evalsha")
    await reclaimer.step()
    assert await own_relay.outcome(session_id, "complete") is Outcome.COMPLETED


async def test_vanished_entry_is_an_error_in_the_log(relay: Relay, redis: Redis, keys: Keys) -> None:
    """No code of ours deletes a pending entry without deciding it, so this is data loss."""
    await relay.record(b"x")
    [entry] = await relay.read("first")
    await redis.xdel(keys.commands(0), entry.id)
    with capture_logs() as logs:
        await reclaimer_of(relay).step()
    assert [(log["log_level"], log["entries"]) for log in logs] == [("error", [entry.id])]


async def test_consumers_of_processes_that_are_gone_are_forgotten(relay: Relay) -> None:
    """The group does not grow with every restart; a consumer that has entries, or is active, stays."""
    await relay.record(b"x")
    await relay.read("with-entry")
    for name in ("gone", "heir"):
        await relay.redis.xgroup_createconsumer(relay.keys.commands(0), "workers", name)
    await reclaimer_of(relay, MIN_IDLE_MS, forget_period=0).step()
    assert {name for name, _, _ in await relay.stream.consumers(0)} >= {"with-entry", "gone"}
    await reclaimer_of(relay, MIN_IDLE_MS, **AT_ONCE).step()
    assert {name for name, _, _ in await relay.stream.consumers(0)} == {"with-entry", "heir"}


async def test_consumers_of_two_hundred_dead_processes_go_and_nothing_that_they_had(relay: Relay) -> None:
    """Each died with an entry in hand: one worker decides all of them, and only then forgets the consumers."""
    session_ids = [(await relay.initiate()).session_id for _ in range(DEAD)]
    for number, session_id in enumerate(session_ids):
        await relay.complete(session_id, f"complete-{number}")
        assert len(await relay.read(f"dead-{number}")) == 1
    await reclaimer_of(relay, MIN_IDLE_MS, **AT_ONCE).step()  # too early: every entry is still its own worker's
    assert len([name for name, pending, _ in await relay.stream.consumers(0) if pending]) == DEAD
    reclaimer = reclaimer_of(relay, **AT_ONCE)

    async def all_are_decided() -> bool:
        await reclaimer.step()
        return await relay.states(session_ids) == {State.COMPLETED}

    await wait_until(all_are_decided)
    await reclaimer.step()
    assert [name for name, _, _ in await relay.stream.consumers(0) if name.startswith("dead-")] == []
    for session_id in session_ids:
        assert await relay.facts(session_id) == [("session.initiated", 1), ("session.completed", 2)]
    assert (await relay.backlog(), await relay.pending()) == (0, 0)
