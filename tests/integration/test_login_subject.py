import msgspec
import pytest
from redis.asyncio import Redis

from runtime.redis.keys import Keys
from statemachine.commands import CompleteSession
from statemachine.lifecycle import Trigger
from statemachine.machine import decide
from statemachine.session import session_after
from statemachine.store.committing import Commit, Transition
from tests.support.relay import PROJECT, SEALED, Relay

SUBJECT = "user:42 <ada@example.org> ü"


async def told(relay: Relay, session_id: str) -> list[tuple[str, object]]:
    """Return whom the login is for in each event of a session."""
    return [
        (event.type, msgspec.json.decode(event.fields["data"]).get("login_subject"))
        for event in await relay.events(session_id)
    ]


async def completed_for(relay: Relay, subject: str | None) -> str:
    """Start a session and complete it for `subject`; returns its id."""
    session_id = (await relay.initiate()).session_id
    await relay.record(CompleteSession("c" + session_id, session_id, "api", SEALED, None, subject))
    await relay.work()
    return session_id


async def test_subject_is_told_from_the_completion_on(relay: Relay, redis: Redis, keys: Keys) -> None:
    """It is in the session, in session.completed and in session.consumed, and is not the event's `subject`."""
    session_id = await completed_for(relay, SUBJECT)
    assert await redis.hget(keys.session(session_id), "login_subject") == SUBJECT.encode()
    await relay.consume(session_id)
    await relay.work()
    assert await told(relay, session_id) == [
        ("session.initiated", None),
        ("session.completed", SUBJECT),
        ("session.consumed", SUBJECT),
    ]
    assert {event.fields["subject"] for event in await relay.events(session_id)} == {session_id}


async def test_subject_is_told_when_nobody_picks_the_token_up(relay: Relay) -> None:
    """The expiry event of a completed session names whose login it was."""
    session_id = await completed_for(relay, SUBJECT)
    session = await relay.session(session_id)
    decision = decide(session, Trigger.DEADLINE, session.deadline + 1)
    after = session_after(session, decision, session.deadline + 1, relay.settings.pickup_window_ms)
    [commit] = await relay.committing.commit([Transition(session, after, decision, session.deadline + 1)])
    assert commit is Commit.COMMITTED
    assert (await told(relay, session_id))[-1] == ("session.expired", SUBJECT)


async def test_subject_of_a_refused_completion_is_dropped(relay: Relay) -> None:
    """A second completion, in the same batch or later, does not change whose login it is."""
    session_id = (await relay.initiate()).session_id
    await relay.record(CompleteSession("first", session_id, "api", SEALED, None, SUBJECT))
    await relay.record(CompleteSession("second", session_id, "api", SEALED, None, "eve"))
    await relay.consume(session_id)
    await relay.work()
    await relay.record(CompleteSession("third", session_id, "api", SEALED, None, "eve"))
    await relay.work()
    assert (await relay.session(session_id)).login_subject == SUBJECT
    assert "eve" not in str(await relay.events(session_id))


@pytest.mark.parametrize("type_", ["session.completed", "session.consumed"])
async def test_completion_without_a_subject_costs_nothing(relay: Relay, redis: Redis, keys: Keys, type_: str) -> None:
    """Neither the session nor its events have the field."""
    session_id = await completed_for(relay, None)
    await relay.consume(session_id)
    await relay.work()
    assert not await redis.hexists(keys.session(session_id), "login_subject")
    [event] = [event for event in await relay.events(session_id) if event.type == type_]
    assert event.fields["data"] == f'{{"project_id":"{PROJECT}"}}'
