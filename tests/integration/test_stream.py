import json

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from runtime.codes import new_session_id
from runtime.redis.keys import Keys
from statemachine.lifecycle import Outcome, State
from statemachine.store.command_stream import (
    Busy,
    CommandStream,
    Entry,
    Moved,
    Recorded,
    Repeated,
    Reused,
)
from statemachine.store.outcomes import KeptOutcome
from statemachine.store.reading import DECIDED_ON, session_in_entry
from tests.support.relay import PROJECT, Relay

HOUR_MS = 3_600_000


async def unread_and_dead(relay: Relay, count: int) -> list[Entry]:
    """Record `count` entries and have them read by a consumer that then does nothing."""
    for number in range(count):
        await relay.record(b"entry %d" % number)
    return await relay.read("dead", count)


async def test_command_is_recorded_once(relay: Relay) -> None:
    """Sending it again returns the outcome of the first, and records nothing."""
    session_id = (await relay.initiate()).session_id
    assert await relay.complete(session_id) == Recorded()
    assert await relay.complete(session_id) == Repeated(Outcome.PENDING)
    assert await relay.backlog() == 1
    await relay.work()
    assert await relay.complete(session_id) == Repeated(Outcome.COMPLETED)
    assert await relay.backlog() == 0


async def test_id_that_another_request_has_is_refused(relay: Relay) -> None:
    """Fingerprints tell them apart, before the first is decided and after: the second one is not recorded."""
    session_id = (await relay.initiate()).session_id
    assert await relay.complete(session_id, fingerprint="one") == Recorded()
    assert await relay.complete(session_id, fingerprint="other") == Reused()
    assert await relay.complete(session_id, fingerprint="one") == Repeated(Outcome.PENDING)
    assert await relay.backlog() == 1
    await relay.work()
    assert await relay.complete(session_id, fingerprint="other") == Reused()
    assert await relay.complete(session_id, fingerprint="one") == Repeated(Outcome.COMPLETED)
    # Also for another session: the key belongs to its sender.
    assert await relay.complete((await relay.initiate()).session_id, fingerprint="two") == Reused()
    assert await relay.backlog() == 0


async def test_outcome_stands_beside_the_fingerprint_of_its_request(relay: Relay, redis: Redis, keys: Keys) -> None:
    """In the value of its key, from the recording on, and as long as the key lives."""
    initiated = await relay.initiate()
    await relay.complete(initiated.session_id, fingerprint="Zm9vYmFy", outcome_ms=HOUR_MS)
    assert await redis.get(keys.outcome(0, "complete")) == b"pending Zm9vYmFy"
    await relay.work()
    assert await redis.get(keys.outcome(0, "complete")) == b"completed Zm9vYmFy"
    assert HOUR_MS - 60_000 < await redis.pttl(keys.outcome(0, "complete")) <= HOUR_MS
    kept = KeptOutcome(Outcome.COMPLETED, "Zm9vYmFy")
    assert await relay.sessions.read_outcomes(0, ["complete", "unknown"]) == [kept, None]
    found = await relay.sessions.find_by_login_code(PROJECT, initiated.login_code, "complete")
    assert found[1] == kept
    await relay.consume(initiated.session_id)
    assert await redis.get(keys.outcome(0, "consume")) == b"pending"
    await relay.work()
    assert await redis.get(keys.outcome(0, "consume")) == b"consumed"


async def test_outcome_without_a_fingerprint_is_that_of_any_request(relay: Relay, redis: Redis, keys: Keys) -> None:
    """An older version writes none and sends none; its workers overwrite that of a newer API process."""
    session_id = (await relay.initiate()).session_id
    assert await relay.complete(session_id) == Recorded()
    assert await relay.complete(session_id, fingerprint="one") == Repeated(Outcome.PENDING)
    await redis.set(keys.outcome(0, "complete"), "pending one", px=60_000)
    assert await relay.complete(session_id) == Repeated(Outcome.PENDING)
    await redis.set(keys.outcome(0, "complete"), "completed", px=60_000)
    assert await relay.complete(session_id, fingerprint="other") == Repeated(Outcome.COMPLETED)


async def test_full_backlog_refuses_before_anything_is_recorded(relay: Relay, redis: Redis, keys: Keys) -> None:
    """At the limit a command is refused and leaves no trace, so that it may be sent again; below it is recorded."""
    first, second = [(await relay.initiate()).session_id for _ in range(2)]
    assert await relay.complete(first, "first", backlog_limit=1) == Recorded()
    assert await relay.complete(second, "second", backlog_limit=1) == Busy()
    assert await relay.backlog() == 1
    assert not await redis.exists(keys.outcome(0, "second"))
    # A recorded command gets its outcome, however full the backlog is.
    assert await relay.complete(first, "first", backlog_limit=1) == Repeated(Outcome.PENDING)
    await relay.work()
    assert await relay.complete(second, "second", backlog_limit=1) == Recorded()


async def test_command_for_another_state_is_not_recorded(relay: Relay) -> None:
    """An outcome that follows from the session's state costs no entry and no worker."""
    session_id = (await relay.initiate()).session_id
    assert await relay.consume(session_id) == Moved(State.PENDING, overdue=False)
    await relay.complete(session_id)
    await relay.work()
    assert await relay.complete(session_id, "again") == Moved(State.COMPLETED, overdue=False)
    assert await relay.complete(new_session_id(0), "nobody") == Moved(None, overdue=False)
    assert await relay.backlog() == 0


async def test_command_for_an_overdue_session_is_not_recorded(relay: Relay) -> None:
    """A session is overdue from the millisecond after its deadline, whether or not it was swept already."""
    initiated = await relay.initiate(lifetime_ms=1)
    await relay.pass_by(initiated.expires_at)
    assert await relay.complete(initiated.session_id) == Moved(State.PENDING, overdue=True)


async def test_making_the_groups_again_keeps_what_is_there(stream: CommandStream, relay: Relay) -> None:
    """A group is made once; it reads entries that were written before it existed."""
    await relay.record(b"early")
    await stream.ensure_groups()
    assert [entry.command for entry in await relay.read()] == [b"early"]
    await stream.ensure_groups()
    assert await relay.pending() == 1


async def test_entry_written_before_its_group_is_read(relay: Relay, redis: Redis, keys: Keys) -> None:
    """If Redis lost the group, or an API wrote first, nothing is dropped: the group begins at the start."""
    await redis.xgroup_destroy(keys.commands(0), "workers")
    await relay.record(b"first")
    with pytest.raises(ResponseError, match="NOGROUP"):
        await relay.read()
    await relay.stream.ensure_groups()
    assert [entry.command for entry in await relay.read()] == [b"first"]


async def test_entry_carries_the_time_of_its_recording(relay: Relay) -> None:
    """A command's time is Redis' own, from the id of its entry."""
    before = await relay.now()
    await relay.record(b"x")
    [entry] = await relay.read()
    assert before <= entry.recorded_at <= await relay.now()
    assert (entry.partition, entry.deliveries) == (0, 1)


async def test_entry_has_the_fields_of_its_session(relay: Relay, redis: Redis, keys: Keys) -> None:
    """All that a decision needs, as the session was when the command was recorded; '' for what it does not have."""
    session_id = (await relay.initiate()).session_id
    await relay.complete(session_id)
    [entry] = await relay.read()
    fields: list[bytes | None] = await redis.execute_command("HMGET", keys.session(session_id), *DECIDED_ON)
    assert json.loads(entry.session) == [value.decode() if value else "" for value in fields]
    assert fields.count(None) == 4
    assert session_in_entry(session_id, entry.session) == await relay.session(session_id)
    assert not await relay.handlers.handle([entry])
    await redis.hset(keys.session(session_id), mapping={"login_subject": 'ada/"ä" \U0001f600', "address": "192.0.2.1"})
    await redis.hset(
        keys.session(session_id),
        "opens",
        '{"family_digest":"AP8=","token_digest":"/wA=","subject":"ada","client_id":"p","idle_ms":1,"life_ms":2}',
    )
    await relay.consume(session_id)
    [entry] = await relay.read()
    assert session_in_entry(session_id, entry.session) == await relay.session(session_id)
    assert b'""' not in entry.session


async def test_entry_is_claimed_only_once_it_is_idle(relay: Relay) -> None:
    """A live consumer keeps its entries; a silent one loses them, and their deliveries are counted."""
    entries = await unread_and_dead(relay, 3)
    assert await relay.stream.claim(0, "heir", HOUR_MS, "0-0", 10) == ("0-0", [], [])
    for deliveries in (2, 3):
        _, claimed, lost = await relay.stream.claim(0, "heir", 0, "0-0", 10)
        assert claimed == [entry._replace(deliveries=deliveries) for entry in entries]
        assert lost == []


async def test_claim_goes_on_from_its_cursor(relay: Relay) -> None:
    """The next claim reaches the entries that the first one did not."""
    entries = await unread_and_dead(relay, 3)
    cursor, first, _ = await relay.stream.claim(0, "heir", 0, "0-0", 2)
    assert cursor == entries[2].id
    cursor, rest, _ = await relay.stream.claim(0, "heir", 0, cursor, 2)
    assert (cursor, [entry.id for entry in (*first, *rest)]) == ("0-0", [entry.id for entry in entries])


async def test_pending_entry_that_vanished_is_reported(relay: Relay, redis: Redis, keys: Keys) -> None:
    """An entry deleted by anything but our scripts is data loss, and is reported separately."""
    gone, there = await unread_and_dead(relay, 2)
    await redis.xdel(keys.commands(0), gone.id)
    _, claimed, lost = await relay.stream.claim(0, "heir", 0, "0-0", 10)
    assert ([entry.id for entry in claimed], lost) == ([there.id], [gone.id])


async def test_entries_handed_back_are_claimable_at_once(relay: Relay) -> None:
    """After a clean stop the entries of every read are free without the idle time and without counting a delivery."""
    given = [*await unread_and_dead(relay, 2), *await unread_and_dead(relay, 1)]
    await relay.complete((await relay.initiate()).session_id, "kept")
    [kept] = await relay.read("other")
    await relay.stream.hand_back(0, "dead")
    await relay.stream.hand_back(0, "nobody")
    _, claimed, _ = await relay.stream.claim(0, "heir", HOUR_MS - 60_000, "0-0", 10)
    assert claimed == [entry._replace(deliveries=2) for entry in given]
    assert kept.id not in {entry.id for entry in claimed}


async def test_dead_letter_is_moved_once_with_its_reason(relay: Relay, redis: Redis, keys: Keys) -> None:
    """The entry leaves the stream and its group, and is kept unchanged in the dead letters."""
    [entry] = await unread_and_dead(relay, 1)
    entry = entry._replace(deliveries=6)
    assert await relay.stream.move_to_dead_letters(entry, "undecodable")
    assert not await relay.stream.move_to_dead_letters(entry, "undecodable")
    assert (await relay.backlog(), await relay.pending()) == (0, 0)
    [(_, letter)] = await redis.execute_command("XRANGE", keys.dead_letters(0), "-", "+")
    assert letter == {
        b"entry": entry.id.encode(),
        b"command": b"entry 0",
        b"reason": b"undecodable",
        b"deliveries": b"6",
    }


async def test_consumer_with_pending_entries_is_not_removed(relay: Relay) -> None:
    """Removing it would destroy them (XGROUP DELCONSUMER); once they are elsewhere it goes."""
    await unread_and_dead(relay, 1)
    assert not await relay.stream.remove_consumer(0, "dead")
    assert not await relay.stream.remove_consumer(0, "nobody")
    await relay.stream.claim(0, "heir", 0, "0-0", 10)
    assert not await relay.stream.remove_consumer(0, "dead", inactive_ms=HOUR_MS)
    assert await relay.stream.remove_consumer(0, "dead")
    [(name, pending, idle_ms)] = await relay.stream.consumers(0)
    assert (name, pending) == ("heir", 1)
    assert idle_ms < HOUR_MS
