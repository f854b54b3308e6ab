import asyncio
import hashlib
from itertools import chain, repeat

import msgspec
import pytest
from redis.asyncio import Redis

from events.cloud_event import encode_event
from projects.errors import InitiationRefusedError
from runtime.address import UNKNOWN_ADDRESS
from runtime.clock import rfc3339
from runtime.codes import login_code_digest, new_session_id
from runtime.redis.keys import Keys
from runtime.settings import Settings
from statemachine.commands import CompleteSession, ConsumeSession, DenySession
from statemachine.events import SessionInitiated
from statemachine.lifecycle import Outcome, State, Trigger
from statemachine.machine import decide
from statemachine.sealing import public_key
from statemachine.session import ClientFacts, Session, TimedSession, session_after
from statemachine.store.command_stream import CommandStream
from statemachine.store.committing import Commit, Transition
from statemachine.store.initiating import Initiated
from tests.support.relay import LIFETIME_MS, PROJECT, SEALED, Relay
from tests.support.store import initiations_of

RETENTION_MS = 86_400_000
ABANDONED_MS = 600_000
REPLAY_WINDOW_MS = 60_000
PICKUP_WINDOW_MS = 120_000


def transition(session: TimedSession, trigger: Trigger, now: int) -> Transition:
    """Decide without an entry, as the sweeper does."""
    decision = decide(session, trigger, now)
    return Transition(session, session_after(session, decision, now, PICKUP_WINDOW_MS), decision, now)


async def test_initiated_session_is_all_that_is_needed_later(relay: Relay, redis: Redis, keys: Keys) -> None:
    """One script writes the session, its login code, its deadline and its first event, with digests for secrets."""
    before = await relay.now()
    client = ClientFacts("tool", hostname="laptop")
    initiated = await relay.initiations.initiate(PROJECT, client, LIFETIME_MS, address="2001:db8::7")
    session_id = initiated.session_id
    found = await redis.execute_command("HGETALL", keys.session(session_id))
    stored = {name.decode(): value for name, value in found.items()}
    created_at = int(stored["created_at"])
    assert before <= created_at <= await relay.now()
    assert initiated.expires_at == created_at + LIFETIME_MS
    assert stored == {
        "state": b"pending",
        "version": b"1",
        "deadline": b"%d" % initiated.expires_at,
        "expires_at": b"%d" % initiated.expires_at,
        "created_at": b"%d" % created_at,
        "project_id": PROJECT.encode(),
        "polling_digest": hashlib.sha256(initiated.polling_code.encode()).digest(),
        "sealing_key": public_key(initiated.polling_code),
        "client": b'{"client_name":"tool","hostname":"laptop"}',
        "address": b"2001:db8::7",
    }
    held = await redis.get(keys.login(login_code_digest(PROJECT, initiated.login_code)))
    assert held == session_id.encode() + public_key(initiated.polling_code)
    partition = keys.partition_of(session_id)
    assert await redis.zscore(keys.deadlines(partition), session_id) == initiated.expires_at
    [event] = await relay.events(session_id)
    assert event.fields == {
        "specversion": "1.0",
        "id": f"{session_id}.1",
        "source": "login-relay",
        "type": "session.initiated",
        "subject": session_id,
        "time": rfc3339(created_at),
        "version": "1",
        "projectid": PROJECT,
        "data": encode_event(SessionInitiated(PROJECT, LIFETIME_MS, client)).decode(),
    }


async def test_taken_login_code_is_drawn_again(relay: Relay) -> None:
    """A login code names one session of a project at a time; the first session keeps it."""
    drawn = chain(repeat("BBBBBBBBBBBB", 3), ["CCCCCCCCCCCC"])
    first, second = [
        await relay.initiations.initiate(PROJECT, ClientFacts(), LIFETIME_MS, lambda: next(drawn)) for _ in range(2)
    ]
    assert (first.login_code, second.login_code) == ("BBBBBBBBBBBB", "CCCCCCCCCCCC")
    assert next(drawn, None) is None
    holder, _ = await relay.sessions.find_by_login_code(PROJECT, "BBBBBBBBBBBB")
    assert holder is not None
    assert holder.session_id == first.session_id
    assert await relay.facts(second.session_id) == [("session.initiated", 1)]


async def test_same_login_code_may_name_a_session_of_each_project(relay: Relay) -> None:
    """Codes of two projects do not collide, and neither project finds the other's session."""
    mine, theirs = [
        await relay.initiations.initiate(project, ClientFacts(), LIFETIME_MS, lambda: "BBBBBBBBBBBB")
        for project in ("mine", "theirs")
    ]
    for project, initiated in (("mine", mine), ("theirs", theirs)):
        holder, _ = await relay.sessions.find_by_login_code(project, "BBBBBBBBBBBB")
        assert holder == (initiated.session_id, public_key(initiated.polling_code), None, None)
    assert await relay.sessions.find_by_login_code("nobody", "BBBBBBBBBBBB") == (None, None)


async def test_session_has_what_is_known_of_its_tool(relay: Relay, redis: Redis, keys: Keys) -> None:
    """The record has the address and the code challenge, if there are any; IPv6 is counted by network."""
    for address, challenge in (("unknown", None), ("192.0.2.1", None), ("2001:db8::7", "c" * 43)):
        initiated = await relay.initiations.initiate(
            PROJECT, ClientFacts(), LIFETIME_MS, address=address, code_challenge=challenge
        )
        stored = await redis.hmget(keys.session(initiated.session_id), ["address", "code_challenge"])
        assert stored == [fact.encode() if fact not in {"unknown", None} else None for fact in (address, challenge)]
    for counted_as in ("unknown", "192.0.2.1", "2001:db8::/64"):
        assert await redis.get(keys.initiations_of_address(0, PROJECT, counted_as)) == b"1"


async def test_login_code_leads_to_its_session_until_the_pickup_window_ends(relay: Relay) -> None:
    """A login completed at the last moment can still be denied; a pending one that is overdue cannot."""
    completed, pending = await relay.completed(lifetime_ms=1_000), await relay.initiate(lifetime_ms=1)
    await relay.pass_by(completed.expires_at)
    expected = ((completed, State.COMPLETED, Outcome.DENIED), (pending, State.PENDING, Outcome.EXPIRED))
    for initiated, state, outcome in expected:
        holder, _ = await relay.sessions.find_by_login_code(PROJECT, initiated.login_code)
        assert holder is not None
        read = await relay.sessions.read(holder.session_id)
        assert read is not None
        assert (read.session.id, read.session.state) == (initiated.session_id, state)
        assert decide(read.session, Trigger.COMPLETE, read.now).outcome is Outcome.REFUSED
        assert decide(read.session, Trigger.DENY, read.now).outcome is outcome
    assert await relay.sessions.find_by_login_code("another project", completed.login_code) == (None, None)


async def test_session_is_read_with_the_time(relay: Relay) -> None:
    """One read gives a poll all that it needs to decide: session, digest, Redis' time."""
    initiated = await relay.initiate()
    before = await relay.now()
    read = await relay.sessions.read(initiated.session_id)
    assert read is not None
    assert before <= read.now <= await relay.now()
    assert read.polling_digest == hashlib.sha256(initiated.polling_code.encode()).digest()
    expires_at = initiated.expires_at
    assert read.session == Session(initiated.session_id, PROJECT, State.PENDING, 1, expires_at, expires_at)
    loaded = await relay.session(initiated.session_id)
    assert loaded == TimedSession(**msgspec.structs.asdict(read.session), since=initiated.expires_at - LIFETIME_MS)


async def test_session_that_does_not_exist_is_none(relay: Relay) -> None:
    """Neither a read nor a batch of reads invents a session."""
    known, unknown = (await relay.initiate()).session_id, new_session_id(0)
    assert await relay.sessions.read(unknown) is None
    assert set(await relay.sessions.load([known, unknown])) == {known}
    assert await relay.sessions.load([]) == {}


async def test_every_key_lives_as_long_as_it_is_needed(relay: Relay, redis: Redis, keys: Keys) -> None:
    """Ends of life follow deadline, pickup window, replay window and retention (docs/architecture.md 5)."""
    initiated = await relay.initiate()
    session_id, expires_at = initiated.session_id, initiated.expires_at
    session, token = keys.session(session_id), keys.sealed_token(session_id)
    assert await redis.pexpiretime(session) == expires_at + ABANDONED_MS
    login = keys.login(login_code_digest(PROJECT, initiated.login_code))
    assert await redis.pexpiretime(login) == expires_at + PICKUP_WINDOW_MS

    await relay.complete(session_id, outcome_ms=86_400_000)
    await relay.work()
    assert await redis.pexpiretime(session) == expires_at + RETENTION_MS
    assert await redis.pexpiretime(token) == expires_at + REPLAY_WINDOW_MS
    assert 86_390_000 < await redis.pttl(keys.outcome(0, "complete")) <= 86_400_000

    await relay.consume(session_id, outcome_ms=5_000)  # that much is left of its time when it was recorded
    await relay.work()
    for replayed in (token, keys.outcome(0, "consume")):
        assert REPLAY_WINDOW_MS - 10_000 < await redis.pttl(replayed) <= REPLAY_WINDOW_MS
    assert await redis.pexpiretime(session) == expires_at + RETENTION_MS


async def test_what_is_remembered_counts_as_live(relay: Relay, redis: Redis, keys: Keys) -> None:
    """A session counts for both caps until it is consumed or forgotten, however early it ended; then no set is left."""
    live = keys.live_sessions(0, PROJECT), keys.live_sessions_of_address(0, PROJECT, "2001:db8::/64")

    async def scores(session_id: str) -> list[float | None]:
        found = [await redis.zscore(key, session_id) for key in live]
        assert [await redis.pexpiretime(key) for key in live] == [score or -2 for score in found]  # -2: it is gone
        return found

    initiated = await relay.initiations.initiate(PROJECT, ClientFacts(), LIFETIME_MS, address="2001:db8::7")
    session_id, expires_at = initiated.session_id, initiated.expires_at
    assert await scores(session_id) == [expires_at + ABANDONED_MS] * 2
    await relay.complete(session_id)
    await relay.work()
    assert await scores(session_id) == [expires_at + RETENTION_MS] * 2
    await relay.consume(session_id)
    await relay.work()
    assert await scores(session_id) == [None] * 2
    brief = await relay.initiations.initiate(PROJECT, ClientFacts(), 1, address="2001:db8::7")
    await relay.pass_by(brief.expires_at)
    session = await relay.session(brief.session_id)
    await relay.committing.commit([transition(session, Trigger.DEADLINE, await relay.now())])
    assert (await relay.session(session.id)).state is State.EXPIRED
    assert await scores(session.id) == [brief.expires_at + ABANDONED_MS] * 2
    assert await redis.pexpiretime(keys.session(session.id)) == brief.expires_at + ABANDONED_MS


@pytest.mark.parametrize("cap", ["live_sessions_per_address", "live_sessions_per_project"])
async def test_forgotten_sessions_make_room(redis: Redis, settings: Settings, keys: Keys, cap: str) -> None:
    """They are looked for when the address, or the project, seems to have too many."""
    few = msgspec.structs.replace(settings, **{cap: 2}, abandoned_retention_ms=1)
    initiations, relay = initiations_of(redis, keys, few), Relay(redis, keys, few, CommandStream(redis, keys))

    async def start(lifetime_ms: int) -> Initiated:
        return await initiations.initiate(PROJECT, ClientFacts(), lifetime_ms, address="192.0.2.1")

    await start(LIFETIME_MS)
    await relay.pass_by((await start(1)).expires_at + 1)
    await start(LIFETIME_MS)
    with pytest.raises(InitiationRefusedError):
        await start(LIFETIME_MS)


async def test_forgotten_sessions_are_never_many(redis: Redis, settings: Settings, keys: Keys) -> None:
    """They leave the sets of live sessions while others are started, long before the caps."""
    brief = msgspec.structs.replace(settings, abandoned_retention_ms=1)
    initiations, relay = initiations_of(redis, keys, brief), Relay(redis, keys, brief, CommandStream(redis, keys))
    live = keys.live_sessions(0, PROJECT), keys.live_sessions_of_address(0, PROJECT, UNKNOWN_ADDRESS)
    await initiations.initiate(PROJECT, ClientFacts(), LIFETIME_MS)
    for _ in range(40):
        started = await initiations.initiate(PROJECT, ClientFacts(), 1)
        assert max([await redis.zcard(key) for key in live]) <= 16
        await relay.pass_by(started.expires_at + 1)


async def test_sets_of_live_sessions_end_with_their_last_session(relay: Relay, redis: Redis, keys: Keys) -> None:
    """Whichever was started last."""
    live = keys.live_sessions(0, PROJECT), keys.live_sessions_of_address(0, PROJECT, "192.0.2.1")
    last = 0
    for lifetime_ms in (LIFETIME_MS, 1_000, 2 * LIFETIME_MS):
        initiate = relay.initiations.initiate
        last = max(last, (await initiate(PROJECT, ClientFacts(), lifetime_ms, address="192.0.2.1")).expires_at)
        assert [await redis.pexpiretime(key) for key in live] == [last + ABANDONED_MS] * 2


@pytest.mark.parametrize("end", [Trigger.CONSUME, Trigger.DENY])
async def test_sets_of_live_sessions_are_shortened_when_the_last_to_be_forgotten_ends(
    relay: Relay, redis: Redis, keys: Keys, end: Trigger
) -> None:
    """They end with the last of the sessions that are left. The end of a session that is not the last is none of it."""
    live = keys.live_sessions(0, PROJECT), keys.live_sessions_of_address(0, PROJECT, UNKNOWN_ADDRESS)
    left, first, last = [await relay.initiate(LIFETIME_MS + more) for more in (0, 1_000, 2_000)]
    for completed in (first, last):
        await relay.complete(completed.session_id, completed.session_id)
    await relay.work()
    for ended, ends_at in ((first, last.expires_at + RETENTION_MS), (last, left.expires_at + ABANDONED_MS)):
        if end is Trigger.CONSUME:
            await relay.consume(ended.session_id, f"consume-{ended.session_id}")
        else:
            await relay.record(DenySession(f"deny-{ended.session_id}", ended.session_id, "api", "declined"))
        await relay.work()
        kept = [int(await redis.zscore(key, ended.session_id) or 0) for key in live]
        assert [await redis.pexpiretime(key) for key in live] == [max(ends_at, score) for score in kept]


async def test_late_completion_lengthens_the_session(relay: Relay, redis: Redis, keys: Keys) -> None:
    """A session completed near its end is kept for the pickup window: deadline, index, token and record alike."""
    initiated = await relay.completed(lifetime_ms=PICKUP_WINDOW_MS // 2)
    session = await relay.session(initiated.session_id)
    assert session.deadline > session.expires_at == initiated.expires_at
    assert int(await redis.hget(keys.session(session.id), "completed_at") or 0) + PICKUP_WINDOW_MS == session.deadline
    assert await redis.zscore(keys.deadlines(0), session.id) == session.deadline
    assert await redis.pexpiretime(keys.sealed_token(session.id)) == session.deadline + REPLAY_WINDOW_MS
    assert await redis.pexpiretime(keys.session(session.id)) == session.deadline + RETENTION_MS


async def test_events_number_the_versions_without_a_gap(relay: Relay) -> None:
    """Every change of state is one event, and its version is one more than the last."""
    initiated = await relay.completed()
    await relay.consume(initiated.session_id)
    await relay.work()
    assert await relay.facts(initiated.session_id) == [
        ("session.initiated", 1),
        ("session.completed", 2),
        ("session.consumed", 3),
    ]
    assert [event.fields["id"] for event in await relay.events(initiated.session_id)] == [
        f"{initiated.session_id}.{version}" for version in (1, 2, 3)
    ]


async def test_decision_on_a_changed_session_is_a_conflict(relay: Relay) -> None:
    """Of two decisions on the same state one is committed; the other changes nothing."""
    initiated = await relay.initiate()
    session = await relay.session(initiated.session_id)
    expiry = transition(session, Trigger.DEADLINE, session.deadline + 1)
    command = CompleteSession("late", session.id, "api", b"sealed")
    completion = transition(session, Trigger.COMPLETE, session.deadline)._replace(command=command)
    assert await relay.committing.commit([expiry, completion]) == [Commit.COMMITTED, Commit.CONFLICT]
    assert await relay.facts(session.id) == [("session.initiated", 1), ("session.expired", 2)]
    assert (await relay.session(session.id)).state is State.EXPIRED
    assert await relay.sessions.read_sealed_token(session.id) is None


async def test_session_that_came_to_be_is_a_conflict(relay: Relay) -> None:
    """A worker that decided on a session as unknown gets a conflict if it exists by then."""
    session_id = (await relay.initiate()).session_id
    command = ConsumeSession("consume", session_id, "api", 4_000)
    decided = Transition.of_unknown(command, await relay.now(), "")
    assert await relay.committing.commit([decided]) == [Commit.CONFLICT]


async def test_concurrent_commits_of_one_session_are_one_change(relay: Relay) -> None:
    """However many workers commit at once, each (session, version) is written once."""
    session = await relay.session((await relay.completed()).session_id)
    consumption = transition(session, Trigger.CONSUME, await relay.now())
    commits = await asyncio.gather(*(relay.committing.commit([consumption]) for _ in range(20)))
    assert sorted(commit for [commit] in commits) == [Commit.COMMITTED] + [Commit.CONFLICT] * 19
    assert (await relay.facts(session.id))[2:] == [("session.consumed", 3)]


async def test_sealed_token_goes_with_the_session_that_expires(relay: Relay) -> None:
    """A token that nobody picked up is deleted when its session expires."""
    session = await relay.session((await relay.completed()).session_id)
    assert await relay.sessions.read_sealed_token(session.id) == SEALED
    await relay.committing.commit([transition(session, Trigger.DEADLINE, session.deadline + 1)])
    assert await relay.sessions.read_sealed_token(session.id) is None


async def test_only_changed_sessions_are_reported(relay: Relay, redis: Redis, keys: Keys) -> None:
    """The look-up for held polls names the sessions that left `pending` or are gone."""
    pending, completed, gone = [
        (await start()).session_id for start in (relay.initiate, relay.completed, relay.initiate)
    ]
    await redis.unlink(keys.session(gone))
    await redis.zrem(keys.deadlines(0), gone)
    assert await relay.sessions.changed([pending, completed, gone]) == [completed, gone]
    assert await relay.sessions.changed([pending]) == []


async def test_old_events_are_trimmed_by_age(redis: Redis, settings: Settings, keys: Keys) -> None:
    """Writing an event drops those older than the retention; the stream is bounded without a sweep."""
    initiations = initiations_of(redis, keys, msgspec.structs.replace(settings, retention_ms=1))
    for _ in range(300):  # `~` trims whole nodes of the stream, of 100 entries
        await initiations.initiate(PROJECT, ClientFacts(), LIFETIME_MS)
    assert await redis.xlen(keys.events(0)) < 250


async def test_events_are_bounded_in_number(redis: Redis, settings: Settings, keys: Keys) -> None:
    """Young ones are trimmed too if there are too many: by the writer of the next one."""
    few = msgspec.structs.replace(settings, events_max=150)
    initiations = initiations_of(redis, keys, few)
    started = [await initiations.initiate(PROJECT, ClientFacts(), LIFETIME_MS) for _ in range(400)]
    assert 150 <= await redis.xlen(keys.events(0)) < 250  # `~` trims whole nodes of the stream, of 100 entries
    for _ in range(200):
        await redis.xadd(keys.events(0), {"filled": "up"})
    relay = Relay(redis, keys, few, CommandStream(redis, keys))
    session = await relay.session(started[0].session_id)
    await relay.committing.commit([transition(session, Trigger.DEADLINE, session.deadline + 1)])
    assert 150 <= await redis.xlen(keys.events(0)) < 250


@pytest.mark.parametrize("field", ["state", "version"])
async def test_commit_compares_state_and_version(relay: Relay, field: str) -> None:
    """The same state at another version, or another state at the same version, is a conflict."""
    session = await relay.session((await relay.initiate()).session_id)
    stale = msgspec.structs.replace(session, **{field: {"state": State.COMPLETED, "version": 7}[field]})
    [commit] = await relay.committing.commit([transition(stale, Trigger.DEADLINE, session.deadline + 1)])
    assert commit is Commit.CONFLICT
    assert await relay.session(session.id) == session
