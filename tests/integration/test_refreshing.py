"""Refreshing as a tool does it: lost answers, many at once, thieves, forgers, and what only reads."""

import asyncio
import random
from collections import Counter

import msgspec
import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from api.logins.refusals import NotDoneInTime, TooManyWrongCodes, WrongRefreshToken
from api.tokens.refusals import DeadRefreshToken
from runtime.codes import RefreshToken
from runtime.redis.keys import Keys
from tests.support.relay import PROJECT, Relay
from tests.support.token_desk import SUBJECT, TokenDesk, caller, parsed, refresh_command
from tokens.lifecycle import Outcome, State

OTHER_PROJECT = "0b8ad5a4-2f06-4f52-9e0f-4a3f0c9b8d11"


async def is_dead(desk: TokenDesk, token: RefreshToken) -> bool:
    """Return whether a token opens nothing."""
    try:
        await desk.refreshing.refresh(caller(), token.text)
    except DeadRefreshToken:
        return True
    return False


async def end_of_grace(desk: TokenDesk, family_id: str) -> None:
    """Let the replay window of a family's latest rotation end."""
    earlier = await desk.now() - desk.settings.replay_window_ms - 1
    await desk.redis.hset(desk.keys.family(family_id), "rotated_at", earlier)
    await desk.redis.delete(desk.keys.successor(family_id))


@pytest.mark.usefixtures("worker")
async def test_a_refresh_replaces_the_token_and_only_the_new_one_rotates_on(desk: TokenDesk) -> None:
    """The family stays, with a generation more; Redis has neither token in clear."""
    first, family = await desk.open()
    refreshed = await desk.refreshing.refresh(caller(), first.text)
    second = parsed(refreshed.refresh_token or "", desk.keys)
    assert (second.family_id, second.generation, second.family_secret) == (family.id, 1, first.family_secret)
    assert refreshed.family.version == (await desk.family(family.id)).version == 2
    assert (refreshed.family.subject, refreshed.family.client_id) == (SUBJECT, PROJECT)
    third = await desk.successor_of(second)
    assert third.generation == 2
    stored = await desk.redis.hgetall(desk.keys.family(family.id))
    assert not any(
        secret.encode() in value for value in stored.values() for secret in (third.text, third.family_secret)
    )
    assert await desk.event_types() == ["family.opened"]  # refreshes are counted, not published


@pytest.mark.usefixtures("worker")
async def test_lost_answers_log_nobody_out(desk: TokenDesk) -> None:
    """300 rotations of a tool that loses 4 of 10 answers and asks again with what it has."""
    dice = random.Random(7)  # noqa: S311 - not for secrets
    token, family = await desk.open()
    asked = 0
    while token.generation < 300:
        successor = await desk.successor_of(token)
        asked += 1
        if dice.random() >= 0.4:
            token = successor
    assert asked > 400
    after = await desk.family(family.id)
    assert (after.state, after.generation) == (State.ACTIVE, 300)


@pytest.mark.usefixtures("worker")
async def test_of_eight_at_once_one_rotates_and_all_get_its_successor(desk: TokenDesk) -> None:
    """However they fall into batches."""
    for _ in range(5):
        token, family = await desk.open()
        successors = await asyncio.gather(*(desk.successor_of(token) for _ in range(8)))
        assert len({successor.text for successor in successors}) == 1
        after = await desk.family(family.id)
        assert (after.state, after.generation, after.version) == (State.ACTIVE, 1, 2)


@pytest.mark.usefixtures("worker")
async def test_an_old_token_revokes_its_family(desk: TokenDesk) -> None:
    """Thief or owner: who comes second ends it for both, and an event and an audit event say so."""
    first, family = await desk.open()
    second = await desk.successor_of(first)
    third = await desk.successor_of(second)
    assert await is_dead(desk, first)
    assert (await desk.family(family.id)).why == "reuse"
    assert await is_dead(desk, third)
    revoked, reused = (await desk.events())[1:]
    assert (revoked["type"], revoked["id"]) == ("family.revoked", f"{family.id}.family.4")
    assert revoked["data"] == f'{{"project_id":"{PROJECT}","why":"reuse","login_subject":"{SUBJECT}"}}'
    assert (reused["type"], reused["subject"]) == ("audit.token_reused", family.id)


@pytest.mark.usefixtures("worker")
async def test_the_token_before_is_old_when_its_grace_is_over(desk: TokenDesk) -> None:
    """Within it there is the same successor, and one audit event a window; after it the family is revoked."""
    first, family = await desk.open()
    second = await desk.successor_of(first)
    assert await desk.successor_of(first) == second
    assert await desk.successor_of(first) == second
    assert (await desk.event_types()).count("audit.token_repeated") == 1
    await end_of_grace(desk, family.id)
    assert await is_dead(desk, first)
    assert await is_dead(desk, second)


@pytest.mark.usefixtures("worker")
async def test_a_forged_token_does_nothing(desk: TokenDesk) -> None:
    """Ids are public: whoever knows one can neither refresh nor revoke. It counts as a wrong code."""
    token, family = await desk.open()
    forged = parsed(token.text[:36] + "A" * 54, desk.keys)
    for _ in range(3):
        with pytest.raises(WrongRefreshToken):
            await desk.refreshing.refresh(caller(), forged.text)
    with pytest.raises(TooManyWrongCodes):
        await desk.refreshing.refresh(caller(), forged.text)
    await desk.revoking.revoke_token(caller(), forged.text)
    assert await desk.introspecting.by_token(PROJECT, forged.text) is None
    assert await desk.family(family.id) == family
    assert await desk.successor_of(token)
    refused = [event["data"] for event in await desk.events() if event["type"] == "audit.guess_refused"]
    assert len(refused) == 1
    assert '"code":"refresh_token"' in refused[0]


async def test_a_forged_token_does_nothing_at_a_worker_either(desk: TokenDesk, relay: Relay) -> None:
    """The API would not have recorded its command."""
    token, family = await desk.open()
    await relay.record(refresh_command(parsed(token.text[:36] + "A" * 54, desk.keys), "forged"))
    await relay.work()
    [kept] = await relay.sessions.read_outcomes(0, ["forged"])
    assert kept is not None
    assert kept.outcome == Outcome.UNKNOWN
    assert await desk.family(family.id) == family


@pytest.mark.usefixtures("worker")
async def test_a_token_ahead_of_the_store_is_no_alarm(desk: TokenDesk, redis: Redis, keys: Keys) -> None:
    """A failover undid its rotation: this login is lost, but nobody is accused, and the token before works on."""
    first, family = await desk.open()
    key = keys.family(family.id)
    before: bytes = await redis.execute_command("DUMP", key)
    second = await desk.successor_of(first)
    life = await redis.pttl(key)
    await redis.delete(keys.successor(family.id))
    await redis.execute_command("RESTORE", key, life, before, "REPLACE")
    assert await is_dead(desk, second)
    assert (await desk.family(family.id)).state is State.ACTIVE
    assert await desk.successor_of(first)


async def test_tokens_of_other_projects_and_clients_open_nothing(desk: TokenDesk) -> None:
    """Nor do they tell whether they exist; no command is recorded."""
    token, family = await desk.open()
    for asker, client in ((caller(OTHER_PROJECT), None), (caller(), "another client")):
        with pytest.raises(DeadRefreshToken):
            await desk.refreshing.refresh(asker, token.text, client)
        await desk.revoking.revoke_token(asker, token.text, client)
    assert not await desk.revoking.revoke_family(OTHER_PROJECT, family.id, "server")
    assert await desk.introspecting.by_token(OTHER_PROJECT, token.text) is None
    assert await desk.introspecting.by_family(OTHER_PROJECT, family.id) is None
    for text in ("", "lrt_", token.text + "A", "lrt_" + "f" * 86, token.text.replace("lrt_00", "lrt_07")):
        with pytest.raises(DeadRefreshToken):
            await desk.refreshing.refresh(caller(), text)
    assert await desk.redis.xlen(desk.keys.commands(0)) == 0
    assert await desk.family(family.id) == family


async def test_a_family_that_does_not_rotate_needs_no_worker(desk: TokenDesk) -> None:
    """Its token stays, and a refresh is noted at most once a minute: the idle time begins again."""
    token, family = await desk.open(rotates=False)
    for _ in range(3):
        refreshed = await desk.refreshing.refresh(caller(), token.text)
        assert refreshed.refresh_token is None
    assert await desk.family(family.id) == family
    key = desk.keys.family(family.id)
    earlier = family.refreshed_at - 61_000
    await desk.redis.hset(key, "refreshed_at", earlier)
    await desk.redis.pexpire(key, 10_000)
    await desk.refreshing.refresh(caller(), token.text)
    after = await desk.family(family.id)
    assert after.refreshed_at >= family.refreshed_at
    assert (after.state, after.version) == (family.state, family.version)
    assert await desk.redis.pttl(key) > 10_000
    assert await desk.redis.zscore(desk.keys.families(0, PROJECT, SUBJECT), family.id) == after.dies_at


async def test_without_workers_a_refresh_changes_nothing_and_can_be_repeated(desk: TokenDesk, relay: Relay) -> None:
    """What comes too late is not committed, so the token that the tool has stays the newest."""
    token, family = await desk.open()
    await relay.record(refresh_command(token, "late", patience=1))
    [entry] = await relay.read()
    await relay.pass_by(entry.recorded_at + 1)
    assert not await relay.handlers.handle([entry])
    assert await desk.family(family.id) == family
    assert (await relay.backlog(), await relay.pending()) == (0, 0)
    assert await relay.sessions.read_outcomes(0, ["late"]) == [None]


async def test_a_command_that_a_frozen_worker_held_back_is_no_theft(desk: TokenDesk, relay: Relay) -> None:
    """Its tool asked again and went on meanwhile. The same token shown afterwards is a theft, however."""
    first, family = await desk.open()
    await relay.record(refresh_command(first, "held back"))
    [entry] = await relay.read("frozen")
    second = first.successor()
    await relay.record(msgspec.structs.replace(refresh_command(first), successor_digest=second.digest))
    await relay.work()
    await relay.record(refresh_command(second))
    await relay.work()
    assert not await relay.handlers.handle([entry])
    [kept] = await relay.sessions.read_outcomes(0, ["held back"])
    assert kept is not None
    assert kept.outcome == Outcome.REFUSED
    after = await desk.family(family.id)
    assert (after.state, after.generation) == (State.ACTIVE, 2)
    await relay.record(refresh_command(first, "thief"))
    await relay.work()
    assert (await desk.family(family.id)).why == "reuse"


async def test_an_entry_that_is_delivered_thrice_commits_once(desk: TokenDesk, relay: Relay) -> None:
    """Also by three workers at once; and the script that is sent again finds its work done."""
    token, family = await desk.open()
    await relay.record(refresh_command(token, "refresh"))
    [entry] = await relay.read()
    failures = await asyncio.gather(*(relay.handlers.handle([entry]) for _ in range(3)))
    assert not any(failures)
    after = await desk.family(family.id)
    assert (after.version, after.generation) == (2, 1)
    [kept] = await relay.sessions.read_outcomes(0, ["refresh"])
    assert kept is not None
    assert kept.outcome == Outcome.ROTATED


async def test_commands_at_several_workers_are_all_decided(desk: TokenDesk, relay: Relay) -> None:
    """Who conflicts reads again: one rotates, all others repeat its successor; a revocation is the end."""
    token, family = await desk.open()
    ids = [f"refresh-{number}" for number in range(32)]
    for id_ in ids:
        await relay.record(refresh_command(token, id_))
    batches = [await relay.read(f"worker-{number}", 8) for number in range(4)]
    assert not any(await asyncio.gather(*(relay.handlers.handle(batch) for batch in batches)))
    outcomes = Counter(str(kept.outcome) for kept in await relay.sessions.read_outcomes(0, ids) if kept)
    assert outcomes == {"rotated": 1, "repeated": 31}
    assert (await desk.family(family.id)).version == 2


async def test_a_lost_reply_is_looked_up(desk: TokenDesk, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome key and the sealed successor are there for the request that did not hear."""
    monkeypatch.setattr(desk.waiting, "_pass_on", lambda *_: None)
    token, _ = await desk.open()
    first, second = (asyncio.create_task(desk.successor_of(token)) for _ in range(2))

    async def work() -> None:
        while not (first.done() and second.done()):
            await relay.work()
            await asyncio.sleep(0.01)

    await asyncio.wait_for(work(), 10)
    assert first.result() == second.result()


async def test_nobody_decides_so_the_caller_may_ask_again(desk: TokenDesk, relay: Relay) -> None:
    """NotDoneInTime, and the next request gets the successor that the first one rotated to meanwhile."""
    token, family = await desk.open()
    desk.refreshing._commanding._commanding._limits = desk.refreshing._commanding._limits._replace(wait_ms=50)  # noqa: SLF001 - the wait of this test
    with pytest.raises(NotDoneInTime):
        await desk.refreshing.refresh(caller(), token.text)
    await relay.work()
    successor = await desk.successor_of(token)
    assert successor.digest == (await desk.family(family.id)).current


@pytest.mark.usefixtures("worker")
async def test_refreshes_are_counted(desk: TokenDesk) -> None:
    """By what became of them; each label exists from the start."""

    def counted(outcome: str) -> float:
        labels = {"command": "RefreshFamily", "outcome": outcome}
        value = REGISTRY.get_sample_value("login_relay_commands_total", labels)
        assert value is not None
        return value

    before = counted("rotated"), counted("reused")
    first, _ = await desk.open()
    await desk.successor_of(await desk.successor_of(first))
    assert await is_dead(desk, first)
    assert (counted("rotated"), counted("reused")) == (before[0] + 2, before[1] + 1)
