"""Families from their opening to their end: hand-over, lists, introspection, revocation, log-out everywhere."""

import asyncio

import msgspec
import pytest
from redis.asyncio import Redis

from api.tokens.refusals import DeadRefreshToken
from projects.project import Policy
from runtime.codes import RefreshToken, mint_refresh_token
from runtime.errors import SettingError
from runtime.redis.keys import Keys
from runtime.settings import Settings, load_settings
from statemachine.commands import CompleteSession
from statemachine.lifecycle import Outcome, State
from tests.support.relay import PROJECT, SEALED, Relay
from tests.support.token_desk import DAY_MS, SUBJECT, TokenDesk, caller, refresh_command
from tokens.family import LONGEST_LIFE_MS, Family, Opening
from tokens.lifecycle import State as FamilyState
from tokens.store import record
from worker.reclaimer import Reclaimer

OTHER = "user:43"


async def completed_login(relay: Relay, subject: str | None = SUBJECT) -> RefreshToken:
    """Complete a session with a minted token; nobody has picked it up yet."""
    session_id = (await relay.initiate()).session_id
    token = mint_refresh_token(session_id)
    opening = Opening(
        token.family_digest,
        token.digest,
        subject or session_id,
        PROJECT,
        30 * DAY_MS,
        365 * DAY_MS,
        "device",
        rotates=True,
    )
    digest = token.digest.hex()
    await relay.record(
        CompleteSession("complete", session_id, "api", SEALED, digest, subject, opens=opening),
        relay.keys.partition_of(session_id),
    )
    await relay.work()
    return token


async def test_a_family_is_opened_exactly_when_its_token_is_handed_over(desk: TokenDesk, relay: Relay) -> None:
    """Not before; with the session's own id, time and client; and an event says so."""
    token = await completed_login(relay)
    assert (await desk.families.read(token.family_id)).family is None
    session = await relay.session(token.family_id)
    await relay.consume(token.family_id)
    await relay.work()
    family = await desk.family(token.family_id)
    assert (family.state, family.version, family.subject) == (FamilyState.ACTIVE, 1, SUBJECT)
    assert (family.opened_at, family.client) == (session.since, b'{"client_name":"tool"}')
    assert family.ends_at == family.opened_at + 365 * DAY_MS
    assert (family.family_digest, family.current) == (token.family_digest, token.digest)
    consumed, opened = (await desk.events())[-2:]
    assert (consumed["type"], opened["type"]) == ("session.consumed", "family.opened")
    assert (opened["subject"], opened["id"]) == (token.family_id, f"{token.family_id}.family.1")
    assert "version" not in opened
    data = {"project_id": PROJECT, "flow": "device", "rotates": True, "login_subject": SUBJECT}
    assert msgspec.json.decode(opened["data"]) == data
    assert await desk.introspecting.by_token(PROJECT, token.text)


@pytest.mark.parametrize("times", [2, 8])
async def test_a_hand_over_that_is_delivered_again_opens_one_family(desk: TokenDesk, relay: Relay, times: int) -> None:
    """The entry is the ticket of both."""
    token = await completed_login(relay)
    await relay.consume(token.family_id)
    [entry] = await relay.read()
    await asyncio.gather(*(relay.handlers.handle([entry]) for _ in range(times)))
    assert (await desk.event_types()).count("family.opened") == 1


async def test_a_token_that_nobody_picks_up_opens_nothing(desk: TokenDesk, relay: Relay) -> None:
    """A login that expired or was denied leaves no family; a token that a backend brought never has one."""
    token = await completed_login(relay)
    await relay.redis.hset(relay.keys.session(token.family_id), "deadline", 1)
    await relay.consume(token.family_id)
    await relay.work()
    brought = (await relay.completed()).session_id
    await relay.consume(brought)
    await relay.work()
    for id_ in (token.family_id, brought):
        assert (await desk.families.read(id_)).family is None
    assert (await relay.session(brought)).state is State.CONSUMED
    assert "family.opened" not in await desk.event_types()


async def test_a_log_out_catches_a_login_that_is_not_picked_up_yet(desk: TokenDesk, relay: Relay) -> None:
    """Its poll is told that it expired, and its token is handed to nobody; a later login of the subject works."""
    token, other = await completed_login(relay), await completed_login(relay, OTHER)
    await desk.logging_out.everywhere(PROJECT, SUBJECT)
    for id_ in (token.family_id, other.family_id):
        await relay.consume(id_, f"consume-{id_}")
    await relay.work()
    assert await relay.outcome(token.family_id, f"consume-{token.family_id}") is Outcome.EXPIRED
    assert await relay.outcome(other.family_id, f"consume-{other.family_id}") is Outcome.CONSUMED
    assert (await desk.families.read(token.family_id)).family is None
    assert (await relay.session(token.family_id)).state is State.COMPLETED  # the sweeper ends it
    await relay.pass_by(await relay.now())
    later = await completed_login(relay)
    await relay.consume(later.family_id)
    await relay.work()
    assert (await desk.family(later.family_id)).state is FamilyState.ACTIVE


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Three partitions: families of one subject are in several."""
    return msgspec.structs.replace(settings, partitions=3)


@pytest.mark.usefixtures("worker")
async def test_log_out_everywhere_ends_all_families_of_a_subject(desk: TokenDesk) -> None:
    """In every partition at once, with one event; each family says why when its token is used."""
    opened = [
        await desk.open(partition=partition, rotates=rotates) for partition in range(3) for rotates in (True, False)
    ]
    kept, _ = await desk.open(subject=OTHER)
    elsewhere, _ = await desk.open(project_id="another")
    assert len(await desk.introspecting.of_subject(PROJECT, SUBJECT)) == 6
    at = await desk.logging_out.everywhere(PROJECT, SUBJECT)
    assert await desk.introspecting.of_subject(PROJECT, SUBJECT) == []
    for token, family in opened:
        assert await desk.introspecting.by_token(PROJECT, token.text) is None
        with pytest.raises(DeadRefreshToken):
            await desk.refreshing.refresh(caller(), token.text)
        after = await desk.family(family.id)
        assert (after.state, after.why) == (FamilyState.REVOKED, "subject")
    assert await desk.introspecting.by_token(PROJECT, kept.text)
    assert await desk.introspecting.by_token("another", elsewhere.text)
    [told] = [event for event in await desk.events() if event["type"] == "subject.logged_out"]
    assert (told["subject"], told["projectid"]) == (PROJECT, PROJECT)
    assert told["data"] == f'{{"project_id":"{PROJECT}","login_subject":"{SUBJECT}"}}'
    assert await desk.logging_out.everywhere(PROJECT, SUBJECT) >= at


async def test_a_log_out_between_decision_and_commit_is_not_missed(desk: TokenDesk, relay: Relay) -> None:
    """The commit compares the cut-off too: the worker reads again, and revokes."""
    token, family = await desk.open()
    await relay.record(refresh_command(token, "refresh"))
    [entry] = await relay.read()
    load, calls = desk.families.load, 0

    class LoggedOutMeanwhile(type(desk.families)):  # type: ignore[misc] # the class of a value
        async def load(self, family_ids: list[str], *, with_cutoffs: bool = True) -> object:
            nonlocal calls
            calls += 1
            loaded = await load(family_ids, with_cutoffs=with_cutoffs)
            if calls == 1:
                await desk.logging_out.everywhere(PROJECT, SUBJECT)
            return loaded

    relay.families._families = LoggedOutMeanwhile(relay.redis, relay.keys)  # noqa: SLF001 - a race made to happen
    assert not await relay.handlers.handle([entry])
    assert calls == 2
    assert (await desk.family(family.id)).why == "subject"


@pytest.mark.usefixtures("worker")
async def test_a_family_is_revoked_by_any_of_its_tokens_or_by_id(desk: TokenDesk) -> None:
    """Once; to revoke it again is no error, and needs no worker."""
    token, family = await desk.open()
    await desk.successor_of(token)
    await desk.revoking.revoke_token(caller(), token.text)
    await desk.revoking.revoke_token(caller(), token.text)
    other, of_server = await desk.open(partition=1)
    assert await desk.revoking.revoke_family(PROJECT, of_server.id, "server")
    assert await desk.revoking.revoke_family(PROJECT, of_server.id, "server")
    assert not await desk.revoking.revoke_family(PROJECT, "00" + 24 * "a", "server")
    assert not await desk.revoking.revoke_family(PROJECT, "no id", "server")
    assert [(await desk.family(id_)).why for id_ in (family.id, of_server.id)] == ["client", "server"]
    assert (await desk.event_types()).count("family.revoked") == 2
    assert await desk.introspecting.by_family(PROJECT, of_server.id) is None
    with pytest.raises(DeadRefreshToken):
        await desk.refreshing.refresh(caller(), other.text)


@pytest.mark.usefixtures("worker")
async def test_an_anonymous_subject_becomes_somebody(desk: TokenDesk) -> None:
    """Its token and its subject stay; a second time there is nothing to upgrade."""
    opened = await desk.opening.anonymous(caller().project, client_id=PROJECT, rotates=False)
    assert opened.family.anonymous
    assert await desk.upgrading.upgrade(opened.family.id)
    after = await desk.family(opened.family.id)
    assert (after.anonymous, after.subject, after.version) == (False, opened.family.subject, 2)
    assert not await desk.upgrading.upgrade(opened.family.id)
    refreshed = await desk.refreshing.refresh(caller(), opened.refresh_token)
    assert refreshed.family == after


async def test_a_backend_opens_a_family_without_a_login(desk: TokenDesk) -> None:
    """For as long as it asks, within what the settings allow."""
    short = await desk.opening.for_subject(caller().project, SUBJECT, client_id=PROJECT, rotates=False, life_ms=60_000)
    assert short.family.ends_at == short.family.opened_at + 60_000
    long = await desk.opening.for_subject(caller().project, SUBJECT, client_id=PROJECT, rotates=False, life_ms=10**12)
    assert long.family.ends_at == long.family.opened_at + desk.settings.refresh_token_life_ms
    assert {family.id for family in await desk.introspecting.of_subject(PROJECT, SUBJECT)} == {
        short.family.id,
        long.family.id,
    }


async def test_a_project_shortens_the_life_of_its_tokens(desk: TokenDesk) -> None:
    """And never lengthens it."""
    project = caller().project
    shorter, longer = (
        Policy(refresh_token_idle_ms=120_000, refresh_token_life_ms=240_000),
        Policy(refresh_token_idle_ms=400 * DAY_MS, refresh_token_life_ms=400 * DAY_MS),
    )
    opened = [
        (await desk.opening.anonymous(project._replace(policy=policy), client_id=PROJECT, rotates=False)).family
        for policy in (shorter, longer)
    ]
    assert [(family.idle_ms, family.ends_at - family.opened_at) for family in opened] == [
        (120_000, 240_000),
        (desk.settings.refresh_token_idle_ms, desk.settings.refresh_token_life_ms),
    ]


async def test_the_list_forgets_what_is_over(desk: TokenDesk) -> None:
    """A subject that logs in for years has no longer list than it has logins."""
    _, over = await desk.open(changed={"refreshed_at": await desk.now() - 31 * DAY_MS})
    _, alive = await desk.open()
    index = desk.keys.families(0, PROJECT, SUBJECT)
    assert await desk.redis.zrange(index, 0, -1) == [alive.id.encode()]
    assert over.id != alive.id
    assert 0 < await desk.redis.pttl(index) <= 30 * DAY_MS


async def test_a_killed_workers_refresh_is_taken_over(desk: TokenDesk, relay: Relay) -> None:
    """Read and never decided: the reclaimer of another worker decides it."""
    token, family = await desk.open()
    await relay.record(refresh_command(token, "refresh"))
    assert len(await relay.read("killed")) == 1
    heir = Reclaimer(relay.stream, relay.handlers, "heir", relay.keys.partitions, min_idle_ms=0, max_deliveries=5)
    await heir.step()
    await heir.aclose()
    assert (await desk.family(family.id)).generation == 1
    assert (await relay.backlog(), await relay.pending()) == (0, 0)


async def test_a_family_of_a_version_to_come_holds_up_no_other(desk: TokenDesk, relay: Relay, redis: Redis) -> None:
    """Its own command fails, and stays pending for a worker that can read it."""
    (strange, melted), (sound, family) = await desk.open(), await desk.open()
    await redis.hset(desk.keys.family(melted.id), "state", "melted")
    for token in (strange, sound):
        await relay.record(refresh_command(token))
    [failure] = await relay.handlers.handle(await relay.read())
    assert failure.is_poison
    assert melted.id.encode() in failure.entry.command
    assert (await desk.family(family.id)).generation == 1


async def test_a_record_is_read_as_it_was_written(redis: Redis, keys: Keys, desk: TokenDesk) -> None:
    """Every field of a family, so that none is forgotten in Redis."""
    _, family = await desk.open(
        changed={
            "anonymous": True,
            "previous": b"\x00\xff",
            "scope": "a b",
            "audience": "c",
            "why": "reuse",
            "generation": 7,
        }
    )
    assert await desk.family(family.id) == family
    assert set(record.field_names()) == set(Family.__struct_fields__) - {"id", "cutoff"}
    stored: list[bytes] = await redis.execute_command("HKEYS", keys.family(family.id))
    assert {name.decode() for name in stored} == set(record.field_names()) - {"client"}


def test_a_cut_off_lives_as_long_as_any_family() -> None:
    """Whatever the settings were when the family was opened."""
    for name in ("LOGIN_RELAY_REFRESH_TOKEN_LIFE_MS", "LOGIN_RELAY_REFRESH_TOKEN_IDLE_MS"):
        load_settings({name: str(LONGEST_LIFE_MS)})
        with pytest.raises(SettingError):
            load_settings({name: str(LONGEST_LIFE_MS + 1)})
