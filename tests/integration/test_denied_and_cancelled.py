"""Sessions that are denied or cancelled, over a real Redis."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from redis.asyncio import Redis

from runtime.redis.keys import Keys
from statemachine.commands import CancelSession, Command, CompleteSession, ConsumeSession, DenySession
from statemachine.lifecycle import Outcome, State
from tests.support.relay import PROJECT, SEALED, Relay


def deny(session_id: str, id_: str = "deny") -> DenySession:
    """Return the command of a person who did not begin this login."""
    return DenySession(id_, session_id, "api", "not_me")


def cancel(session_id: str, id_: str = "cancel") -> CancelSession:
    """Return the command of a tool that gives up."""
    return CancelSession(id_, session_id, "api")


End = Callable[[str], Command]
ends = pytest.mark.parametrize(("end", "state"), [(deny, State.DENIED), (cancel, State.CANCELLED)])
TOLD = {State.DENIED: {"reason": "not_me"}, State.CANCELLED: {}}
"""The data of each event beside project, former state and subject."""


async def do(relay: Relay, command: Command) -> Outcome | None:
    """Record a command and let a worker decide it; returns its outcome."""
    await relay.record(command)
    await relay.work()
    return await relay.outcome(command.session_id, command.id)


@ends
async def test_pending_session_ends(relay: Relay, redis: Redis, keys: Keys, end: End, state: State) -> None:
    """With its event; its held poll is woken, nothing is left to sweep, and it is forgotten in minutes."""
    session_id = (await relay.initiate()).session_id
    async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(keys.hints(0))
        await pubsub.get_message(timeout=1)
        assert await do(relay, end(session_id)) == state.value
        message = await pubsub.get_message(timeout=1)
    assert message is not None
    assert message["data"] == session_id.encode()
    session = await relay.session(session_id)
    assert (session.state, session.version) == (state, 2)
    event = (await relay.events(session_id))[-1]
    assert (event.type, event.version) == (f"session.{state}", 2)
    assert msgspec.json.decode(event.fields["data"]) == {"project_id": PROJECT, "state": "pending", **TOLD[state]}
    assert not await redis.exists(keys.deadlines(0))
    ended_at = int(await redis.hget(keys.session(session_id), f"{state}_at") or 0)
    forgotten_at = ended_at + relay.settings.abandoned_retention_ms
    assert await redis.pexpiretime(keys.session(session_id)) == forgotten_at
    assert await redis.zscore(keys.live_sessions(0, PROJECT), session_id) == forgotten_at


@ends
async def test_completed_session_is_taken_back(relay: Relay, end: End, state: State) -> None:
    """Until it is picked up: its sealed token is deleted, and the event names whose login it would have been."""
    session_id = (await relay.initiate()).session_id
    await do(relay, CompleteSession("complete", session_id, "api", SEALED, None, "ada"))
    assert await relay.sessions.read_sealed_token(session_id) == SEALED
    assert await do(relay, end(session_id)) == state.value
    assert await relay.sessions.read_sealed_token(session_id) is None
    assert await relay.facts(session_id) == [
        ("session.initiated", 1),
        ("session.completed", 2),
        (f"session.{state}", 3),
    ]
    assert msgspec.json.decode((await relay.events(session_id))[-1].fields["data"]) == {
        "project_id": PROJECT,
        "state": "completed",
        "login_subject": "ada",
        **TOLD[state],
    }


@ends
async def test_session_that_ended_stays_so(relay: Relay, end: End, state: State) -> None:
    """It is neither completed nor consumed; ending it again gives the same answer and no second event."""
    session_id = (await relay.initiate()).session_id
    await do(relay, end(session_id))
    ended = await relay.session(session_id)
    assert await do(relay, CompleteSession("complete", session_id, "api", SEALED)) is Outcome.REFUSED
    for command in (
        ConsumeSession("consume", session_id, "api", 4_000),
        deny(session_id, "a"),
        cancel(session_id, "b"),
    ):
        assert await do(relay, command) == state.value
    assert await relay.session(session_id) == ended
    assert len(await relay.events(session_id)) == 2
    assert await relay.sessions.read_sealed_token(session_id) is None


@pytest.mark.parametrize("end", [deny, cancel])
async def test_end_that_comes_too_late_changes_nothing(relay: Relay, end: End) -> None:
    """A consumed session is used and an overdue one expired, whether or not it was swept already."""
    consumed = (await relay.completed()).session_id
    await do(relay, ConsumeSession("consume", consumed, "api", 4_000))
    assert await do(relay, end(consumed)) is Outcome.USED
    overdue = await relay.initiate(lifetime_ms=1)
    await relay.pass_by(overdue.expires_at)
    assert await do(relay, end(overdue.session_id)) is Outcome.EXPIRED
    assert (await relay.session(overdue.session_id)).state is State.PENDING


async def test_of_all_that_comes_at_once_one_wins(relay: Relay) -> None:
    """A poll, a denial and a cancellation at three workers: one end, one event, and one token or no token."""
    for number in range(20):
        session_id = (await relay.completed()).session_id
        commands: list[Command] = [ConsumeSession(f"consume-{number}", session_id, "api", 4_000)]
        commands += [deny(session_id, f"deny-{number}"), cancel(session_id, f"cancel-{number}")]
        for command in commands:
            await relay.record(command)
        batches = [await relay.read(f"worker-{command.id}", count=1) for command in commands]
        assert not any(await asyncio.gather(*(relay.handlers.handle(batch) for batch in batches)))
        state = (await relay.session(session_id)).state
        told = "used" if state is State.CONSUMED else state.value
        outcomes = [await relay.outcome(session_id, command.id) for command in commands]
        assert sorted(str(outcome) for outcome in outcomes) == sorted([state.value, told, told])
        assert (await relay.facts(session_id))[2:] == [(f"session.{state}", 3)]
        assert (await relay.sessions.read_sealed_token(session_id) is not None) is (state is State.CONSUMED)
