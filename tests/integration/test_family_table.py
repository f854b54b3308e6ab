"""The whole table of the lifecycle of families, each row brought about over a real server."""

from itertools import product
from typing import NamedTuple

import pytest

from runtime.codes import RefreshToken
from tests.support.relay import Relay
from tests.support.store import token_retention_of
from tests.support.token_desk import DAY_MS, SUBJECT, TokenDesk, refresh_command
from tokens.commands import FamilyCommand, RevokeFamily, UpgradeFamily
from tokens.family import Family
from tokens.lifecycle import CONDITIONS, Condition, Outcome, State, Trigger
from tokens.store.recording import Subjects

ROWS = [(state, trigger, condition) for state, trigger in product(State, Trigger) for condition in CONDITIONS[trigger]]

REFUSED = (None, Outcome.REFUSED)
EXPECTED: dict[tuple[State, Trigger, Condition], tuple[State | None, Outcome]] = {
    (State.ACTIVE, Trigger.REFRESH, Condition.CURRENT): (State.ACTIVE, Outcome.ROTATED),
    (State.ACTIVE, Trigger.REFRESH, Condition.PREVIOUS): (None, Outcome.REPEATED),
    (State.ACTIVE, Trigger.REFRESH, Condition.STATIC): (None, Outcome.KEPT),
    (State.ACTIVE, Trigger.REFRESH, Condition.STALE): (State.REVOKED, Outcome.REUSED),
    (State.ACTIVE, Trigger.REFRESH, Condition.OVERTAKEN): REFUSED,
    (State.ACTIVE, Trigger.REFRESH, Condition.AHEAD): REFUSED,
    (State.ACTIVE, Trigger.REFRESH, Condition.LOGGED_OUT): (State.REVOKED, Outcome.REFUSED),
    (State.ACTIVE, Trigger.REFRESH, Condition.OVERDUE): REFUSED,
    (State.ACTIVE, Trigger.REVOKE, Condition.ALIVE): (State.REVOKED, Outcome.REVOKED),
    (State.ACTIVE, Trigger.REVOKE, Condition.OVERDUE): (None, Outcome.REVOKED),
    (State.ACTIVE, Trigger.UPGRADE, Condition.ANONYMOUS): (State.ACTIVE, Outcome.UPGRADED),
    (State.ACTIVE, Trigger.UPGRADE, Condition.NAMED): REFUSED,
    (State.ACTIVE, Trigger.UPGRADE, Condition.LOGGED_OUT): (State.REVOKED, Outcome.REFUSED),
    (State.ACTIVE, Trigger.UPGRADE, Condition.OVERDUE): REFUSED,
}
"""What becomes of an active family, written without a look at the rules. A revoked one never changes."""


class Arranged(NamedTuple):
    """A family under some condition, and the token that asks."""

    before: Family
    asks: RefreshToken


async def arrange(desk: TokenDesk, relay: Relay, state: State, condition: Condition) -> Arranged:
    """Bring a family into a state, under a condition."""
    now = await desk.now()
    fields: dict[str, object] = {"state": state, "anonymous": condition is Condition.ANONYMOUS}
    if condition is Condition.OVERDUE:
        fields |= {"opened_at": now - 31 * DAY_MS, "refreshed_at": now - 30 * DAY_MS - 1_000}
    if condition is Condition.STALE:
        fields |= {"rotated_at": now - desk.settings.replay_window_ms - 1_000}
    token, family = await desk.open(rotates=condition is not Condition.STATIC, changed=fields)
    asks, successor = token, token.successor()
    match condition:
        case Condition.PREVIOUS | Condition.STALE:
            key = desk.keys.family(family.id)
            await desk.redis.hset(key, mapping={"current": successor.digest, "previous": token.digest, "generation": 1})
            if condition is Condition.PREVIOUS:
                await desk.redis.hset(key, "rotated_at", now)
        case Condition.OVERTAKEN:
            newest, key = successor.successor(), desk.keys.family(family.id)
            await desk.redis.hset(key, mapping={"current": newest.digest, "previous": successor.digest})
            await desk.redis.hset(key, mapping={"generation": 2, "rotated_at": now + DAY_MS})
        case Condition.AHEAD:
            asks = successor
        case Condition.LOGGED_OUT:
            await Subjects(relay.redis, relay.keys, token_retention_of(relay.settings)).log_out(
                family.project_id, SUBJECT
            )
    return Arranged(await desk.family(family.id), asks)


def command_for(trigger: Trigger, asks: RefreshToken) -> FamilyCommand:
    """Return the command that brings a trigger."""
    match trigger:
        case Trigger.REFRESH:
            return refresh_command(asks, "command")
        case Trigger.REVOKE:
            return RevokeFamily("command", asks.family_id, "api", "server")
        case Trigger.UPGRADE:
            return UpgradeFamily("command", asks.family_id, "api")


@pytest.mark.parametrize(("state", "trigger", "condition"), ROWS)
async def test_every_row_of_the_table(
    desk: TokenDesk, relay: Relay, state: State, trigger: Trigger, condition: Condition
) -> None:
    """Outcome, state, version and event, for each state, trigger and condition."""
    before, asks = await arrange(desk, relay, state, condition)
    published = len(await desk.events())
    await relay.record(command_for(trigger, asks))
    await relay.work()
    target, outcome = EXPECTED[state, trigger, condition] if state is State.ACTIVE else (None, None)
    if outcome is None:
        outcome = Outcome.REVOKED if trigger is Trigger.REVOKE else Outcome.REFUSED
    [kept] = await relay.sessions.read_outcomes(0, ["command"])
    assert kept is not None
    assert kept.outcome == outcome
    after = await desk.family(before.id)
    assert (after.state, after.version) == (target or before.state, before.version + (target is not None))
    events = (await desk.events())[published:]
    revoked = target is State.REVOKED
    assert [(event["type"], event["subject"]) for event in events] == [("family.revoked", before.id)] * revoked
    assert await relay.backlog() == 0
    if target is None:
        assert after == before
    if outcome is Outcome.ROTATED:
        assert (after.previous, after.generation) == (asks.digest, before.generation + 1)
    if outcome is Outcome.UPGRADED:
        assert (after.anonymous, after.subject) == (False, before.subject)
