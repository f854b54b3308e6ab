import asyncio

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from events.cloud_event import encode_event
from runtime.codes import new_session_id
from runtime.redis.keys import Keys
from statemachine.commands import CompleteSession, ConsumeSession, DenySession, encode_command
from statemachine.events import SessionCompleted, SessionConsumed
from statemachine.lifecycle import Outcome, State, Trigger
from statemachine.machine import decide
from statemachine.session import session_after
from statemachine.store.command_stream import Entry, Recorded
from statemachine.store.committing import Commit, Transition
from statemachine.store.initiating import Initiated
from tests.support.relay import PROJECT, SEALED, Relay


async def a_consume(relay: Relay, initiated: Initiated, id_: str) -> tuple[Entry, Transition]:
    """Record, read and decide a consumption; nothing is committed."""
    await relay.consume(initiated.session_id, id_)
    [entry] = await relay.read(f"reader-of-{id_}")
    session = await relay.session(initiated.session_id)
    decision = decide(session, Trigger.CONSUME, entry.recorded_at)
    after = session_after(session, decision, entry.recorded_at, relay.settings.pickup_window_ms)
    command = ConsumeSession(id_, session.id, "api", 4_000)
    return entry, Transition(session, after, decision, entry.recorded_at, command, entry.id)


async def test_login_goes_from_initiated_to_consumed(relay: Relay, redis: Redis, keys: Keys) -> None:
    """Each command makes one change, one event, one outcome and one reply; that to the consume brings the sealed token.

    Only the change that a held poll may wait for makes a hint.
    """
    session_id = (await relay.initiate()).session_id
    async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(keys.hints(0), keys.replies(0, "api"))
        await pubsub.get_message(timeout=1)
        await pubsub.get_message(timeout=1)
        await relay.complete(session_id)
        await relay.work()
        await relay.consume(session_id)
        await relay.work()
        messages = [await pubsub.get_message(timeout=1) for _ in range(3)]
    assert [(message["channel"], message["data"]) for message in messages if message] == [
        (keys.hints(0).encode(), session_id.encode()),
        (keys.replies(0, "api").encode(), b"complete completed "),
        (keys.replies(0, "api").encode(), b"consume consumed " + SEALED),
    ]
    assert (await relay.session(session_id)).state is State.CONSUMED
    assert await relay.facts(session_id) == [
        ("session.initiated", 1),
        ("session.completed", 2),
        ("session.consumed", 3),
    ]
    assert await relay.outcome(session_id, "complete") is Outcome.COMPLETED
    assert await relay.outcome(session_id, "consume") is Outcome.CONSUMED
    assert (await relay.backlog(), await relay.pending()) == (0, 0)


@pytest.mark.parametrize(("digest", "subject"), [("ab12", None), (None, "user-1"), (None, None)])
async def test_events_tell_what_the_completion_said(relay: Relay, digest: str | None, subject: str | None) -> None:
    """The digest of a minted token is in one event; whom the login is for, in every event from then on."""
    session_id = (await relay.initiate()).session_id
    await relay.record(CompleteSession("complete", session_id, "api", SEALED, digest, subject))
    await relay.work()
    await relay.consume(session_id)
    await relay.work()
    assert [event.fields["data"] for event in (await relay.events(session_id))[1:]] == [
        encode_event(SessionCompleted(PROJECT, digest, subject)).decode(),
        encode_event(SessionConsumed(PROJECT, subject)).decode(),
    ]


async def test_of_two_completes_in_one_batch_the_first_wins(relay: Relay) -> None:
    """The second is decided on the state that the first leads to, in the same round."""
    session_id = (await relay.initiate()).session_id
    await relay.complete(session_id, "first")
    await relay.complete(session_id, "second")
    assert not await relay.handlers.handle(await relay.read())
    outcomes = [await relay.outcome(session_id, id_) for id_ in ("first", "second")]
    assert outcomes == [Outcome.COMPLETED, Outcome.REFUSED]
    assert await relay.facts(session_id) == [("session.initiated", 1), ("session.completed", 2)]


async def test_complete_and_consumes_in_one_batch_are_decided_in_their_order(relay: Relay) -> None:
    """A whole life in one batch: waiting, completed, consumed, used."""
    session_id = (await relay.initiate()).session_id
    for id_ in ("early", "complete", "first", "second"):
        if id_ == "complete":
            await relay.complete(session_id)
        else:
            await relay.record(ConsumeSession(id_, session_id, "api", 4_000))
    assert not await relay.handlers.handle(await relay.read())
    outcomes = [await relay.outcome(session_id, id_) for id_ in ("early", "complete", "first", "second")]
    assert outcomes == [Outcome.WAITING, Outcome.COMPLETED, Outcome.CONSUMED, Outcome.USED]
    assert await relay.facts(session_id) == [
        ("session.initiated", 1),
        ("session.completed", 2),
        ("session.consumed", 3),
    ]


async def test_commands_of_one_session_in_one_batch_do_not_conflict(relay: Relay) -> None:
    """Each is decided on the state that the one before it led to, once that is committed."""
    session_id = (await relay.initiate()).session_id
    await relay.complete(session_id)
    await relay.record(ConsumeSession("first", session_id, "api", 4_000))
    await relay.record(DenySession("deny", session_id, "api", "declined"))
    await relay.record(ConsumeSession("second", session_id, "api", 4_000))
    conflicts = conflicts_of_commands()
    assert not await relay.handlers.handle(await relay.read())
    assert conflicts_of_commands() == conflicts
    outcomes = [await relay.outcome(session_id, id_) for id_ in ("complete", "first", "deny", "second")]
    assert outcomes == [Outcome.COMPLETED, Outcome.CONSUMED, Outcome.USED, Outcome.USED]


async def test_entry_is_decided_on_the_session_that_it_brings(relay: Relay, redis: Redis, keys: Keys) -> None:
    """The session is not read: what the commit does not compare is as it was when the command was recorded."""
    session_id = (await relay.initiate()).session_id
    await relay.complete(session_id)
    await redis.hset(keys.session(session_id), "project_id", "not read")
    await relay.work()
    event = (await relay.events(session_id))[-1]
    assert event.fields["data"] == encode_event(SessionCompleted(PROJECT)).decode()


async def test_entry_whose_session_has_changed_since_is_decided_on_what_it_is_now(relay: Relay) -> None:
    """The commit finds another version. The session is read, and the right decision taken."""
    session_id = (await relay.completed()).session_id
    await relay.consume(session_id)
    [stale] = await relay.read()
    await relay.record(DenySession("deny", session_id, "api", "declined"))
    await relay.work()
    conflicts = conflicts_of_commands()
    assert not await relay.handlers.handle([stale])
    assert conflicts_of_commands() == (conflicts or 0) + 1
    assert await relay.outcome(session_id, "consume") is Outcome.DENIED
    assert (await relay.facts(session_id))[2:] == [("session.denied", 3)]


async def test_entry_that_was_taken_over_is_decided_on_what_is_read(relay: Relay) -> None:
    """It was recorded some time ago, so what it brings is not tried."""
    session_id = (await relay.completed()).session_id
    await relay.consume(session_id)
    await relay.read()
    await relay.record(DenySession("deny", session_id, "api", "declined"))
    await relay.work()
    _, [claimed], _ = await relay.stream.claim(0, "heir", 0, "0-0", 10)
    conflicts = conflicts_of_commands()
    assert not await relay.handlers.handle([claimed])
    assert conflicts_of_commands() == conflicts
    assert await relay.outcome(session_id, "consume") is Outcome.DENIED


@pytest.mark.parametrize(
    "session",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'["melted","1","9","9","p","","1","",""]',
        b'["pending","1","9","9",false,"","1","",""]',
    ],
    ids=["missing", "not_json", "empty", "not_a_list", "unknown_state", "other_types"],
)
async def test_entry_that_brings_no_readable_session_is_decided_on_what_is_read(relay: Relay, session: bytes) -> None:
    """An older version brought none, and a later one may bring another; dead letters that are replayed bring none."""
    session_id = (await relay.initiate()).session_id
    await relay.complete(session_id)
    [entry] = await relay.read()
    assert not await relay.handlers.handle([entry._replace(session=session)])
    assert await relay.outcome(session_id, "complete") is Outcome.COMPLETED


async def test_consume_behind_a_completion_that_lost_has_the_subject_of_the_one_that_won(relay: Relay) -> None:
    """It is not decided on what the losing completion would have led to, which has the same state and version."""
    session_id = (await relay.initiate()).session_id
    for id_ in ("winner", "loser"):
        command = CompleteSession(id_, session_id, "api", SEALED, login_subject=id_)
        await relay.stream.enqueue(command, backlog_limit=10, outcome_ms=60_000)
    [winner] = await relay.read("worker-1", 1)
    await relay.record(ConsumeSession("consume", session_id, "api", 4_000))
    batch = await relay.read("worker-2")
    assert not await relay.handlers.handle([winner])
    assert not await relay.handlers.handle(batch)
    outcomes = [await relay.outcome(session_id, id_) for id_ in ("winner", "loser", "consume")]
    assert outcomes == [Outcome.COMPLETED, Outcome.REFUSED, Outcome.CONSUMED]
    assert (await relay.events(session_id))[-1].fields["data"] == encode_event(
        SessionConsumed(PROJECT, "winner")
    ).decode()


def conflicts_of_commands() -> float | None:
    """Return how many commands of this process were decided on a session that had changed."""
    return REGISTRY.get_sample_value("login_relay_conflicts_total", {"trigger": "command"})


async def test_consume_past_its_patience_leaves_the_token_for_the_next_poll(relay: Relay) -> None:
    """The poll was answered `waiting`, so its consumption must not be committed later; that of the next poll is."""
    session_id = (await relay.completed()).session_id
    await relay.consume(session_id, "late", patience=1)
    [entry] = await relay.read()
    await relay.pass_by(entry.recorded_at + 1)
    assert not await relay.handlers.handle([entry])
    assert await relay.outcome(session_id, "late") is None
    assert (await relay.session(session_id)).state is State.COMPLETED
    assert (await relay.backlog(), await relay.pending()) == (0, 0)
    # The same command counts as new: nothing of the late one is remembered.
    assert await relay.consume(session_id, "late") == Recorded()
    await relay.work()
    assert await relay.outcome(session_id, "late") is Outcome.CONSUMED
    assert await relay.facts(session_id) == [
        ("session.initiated", 1),
        ("session.completed", 2),
        ("session.consumed", 3),
    ]


async def test_late_commit_of_a_worker_taken_for_dead_changes_nothing(relay: Relay) -> None:
    """Another worker decided its entry meanwhile: neither the session nor the outcome is written again."""
    initiated = await relay.completed()
    entry, decided = await a_consume(relay, initiated, "poll")
    _, [claimed], _ = await relay.stream.claim(0, "heir", 0, "0-0", 10)
    assert not await relay.handlers.handle([claimed])
    assert await relay.committing.commit([decided]) == [Commit.CONFLICT]
    # After a conflict the worker reads again, and decides `used`; the first outcome stays.
    assert not await relay.handlers.handle([entry])
    assert await relay.outcome(initiated.session_id, "poll") is Outcome.CONSUMED
    assert (await relay.facts(initiated.session_id))[2:] == [("session.consumed", 3)]


async def test_commit_that_is_sent_again_changes_nothing(relay: Relay) -> None:
    """After a lost reply redis-py sends the script again, which finds its work done."""
    initiated = await relay.completed()
    _, decided = await a_consume(relay, initiated, "poll")
    assert await relay.committing.commit([decided, decided]) == [Commit.COMMITTED, Commit.CONFLICT]
    _, refused = await a_refused_complete(relay)
    assert await relay.committing.commit([refused, refused]) == [Commit.COMMITTED, Commit.GONE]
    assert await relay.outcome(refused.before.id, "refused") is Outcome.REFUSED


async def a_refused_complete(relay: Relay) -> tuple[Entry, Transition]:
    """Record, read and decide a second completion; nothing of it is committed."""
    session = await relay.session((await relay.completed()).session_id)
    command = CompleteSession("refused", session.id, "api", b"other")
    await relay.record(command)
    [entry] = await relay.read()
    decision = decide(session, Trigger.COMPLETE, entry.recorded_at)
    return entry, Transition(session, session, decision, entry.recorded_at, command, entry.id)


async def test_two_workers_with_one_entry_decide_it_once(relay: Relay) -> None:
    """The entry is the ticket: the worker that deletes it commits."""
    session_id = (await relay.completed()).session_id
    await relay.consume(session_id)
    [entry] = await relay.read()
    failures = await asyncio.gather(*(relay.handlers.handle([entry]) for _ in range(8)))
    assert not any(failures)
    assert await relay.outcome(session_id, "consume") is Outcome.CONSUMED
    assert (await relay.facts(session_id))[2:] == [("session.consumed", 3)]


async def test_commands_of_one_session_at_several_workers_are_all_decided(relay: Relay) -> None:
    """Workers that conflict read again until each command has its outcome: one consumed, the others used."""
    session_id = (await relay.completed()).session_id
    ids = [f"poll-{number}" for number in range(32)]
    for id_ in ids:
        await relay.consume(session_id, id_)
    batches = [await relay.read(f"worker-{number}", 8) for number in range(4)]
    assert [len(batch) for batch in batches] == [8] * 4
    assert not any(await asyncio.gather(*(relay.handlers.handle(batch) for batch in batches)))
    outcomes = [await relay.outcome(session_id, id_) for id_ in ids]
    assert sorted(str(outcome) for outcome in outcomes) == ["consumed"] + ["used"] * 31


async def test_command_for_no_session_has_an_outcome(relay: Relay) -> None:
    """The waiting request gets its outcome, and nothing else is written."""
    session_id = new_session_id(0)
    await relay.record(ConsumeSession("ghost", session_id, "api", 4_000))
    await relay.work()
    assert await relay.outcome(session_id, "ghost") is Outcome.UNKNOWN
    assert await relay.sessions.read(session_id) is None
    assert await relay.events(session_id) == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\x00", "undecodable: "),
        (b"", "undecodable: "),
        (b'{"type":"\x80"}', "undecodable: "),
        (b'{"type":"ConsumeSession","x":' + b"[" * 100_000, "undecodable: "),
        (b'{"type":"MeltSession","id":"x","session_id":"y"}', "undecodable: "),
        (b'{"type":"ConsumeSession"}', "undecodable: "),
        (encode_command(ConsumeSession("x", "", "api", 1)), "names no session of this partition"),
        (encode_command(ConsumeSession("x", "no session", "api", 1)), "names no session of this partition"),
        (encode_command(ConsumeSession("x", new_session_id(1), "api", 1)), "names no session of this partition"),
    ],
    ids=[
        "not_json",
        "empty",
        "not_utf8",
        "too_deep",
        "unknown_type",
        "no_fields",
        "no_session",
        "malformed_session",
        "other_partition",
    ],
)
async def test_entry_that_cannot_be_read_holds_up_no_other(relay: Relay, data: bytes, reason: str) -> None:
    """It stays pending and is reported as the culprit; the other entries of the batch are decided."""
    before, after = [(await relay.initiate()).session_id for _ in range(2)]
    await relay.complete(before, "before")
    await relay.record(data)
    await relay.complete(after, "after")
    [failure] = await relay.handlers.handle(await relay.read())
    assert (failure.entry.command, failure.is_poison) == (data, True)
    assert failure.reason.startswith(reason)
    assert [await relay.outcome(id_, name) for id_, name in ((before, "before"), (after, "after"))] == [
        Outcome.COMPLETED,
        Outcome.COMPLETED,
    ]
    assert await relay.pending() == 1


async def test_session_that_cannot_be_read_holds_up_no_other(relay: Relay, redis: Redis, keys: Keys) -> None:
    """A session in a state that this version does not know fails its own commands, and not their batch."""
    strange, sound = [(await relay.initiate()).session_id for _ in range(2)]
    await relay.complete(strange, "strange")
    await relay.complete(sound, "sound")
    await redis.hset(keys.session(strange), "state", "melted")
    [failure] = await relay.handlers.handle(await relay.read())
    assert b'"strange"' in failure.entry.command
    assert failure.is_poison
    assert await relay.outcome(sound, "sound") is Outcome.COMPLETED
    assert await redis.hget(keys.session(strange), "state") == b"melted"


async def test_entry_survives_a_redis_that_refuses_to_write(own_relay: Relay) -> None:
    """A refused commit is not the entry's fault: it stays pending and is decided once Redis accepts writes."""
    relay = own_relay
    session_id = (await relay.initiate()).session_id
    await relay.complete(session_id)
    entries = await relay.read()
    await relay.redis.config_set("min-replicas-to-write", "1")
    [failure] = await relay.handlers.handle(entries)
    assert not failure.is_poison
    assert (await relay.session(session_id)).state is State.PENDING
    await relay.redis.config_set("min-replicas-to-write", "0")
    assert not await relay.handlers.handle([failure.entry])
    assert await relay.outcome(session_id, "complete") is Outcome.COMPLETED
