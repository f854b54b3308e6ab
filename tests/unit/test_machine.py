import gc
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine.events import FACT_OF, event_for
from statemachine.lifecycle import ENDS, RULES, Decision, Outcome, State, Trigger
from statemachine.machine import decide, decision
from statemachine.session import TimedSession, session_after
from tests.support.commands import COMMAND_OF

DEADLINE = 1_000
PICKUP_WINDOW = 120
IN_TIME, OVERDUE = False, True

COMPLETE, CONSUME, DEADLINE_PASSED = Trigger.COMPLETE, Trigger.CONSUME, Trigger.DEADLINE


def a_session(state: State = State.PENDING, version: int = 1, deadline: int = DEADLINE) -> TimedSession:
    """Return a session."""
    return TimedSession("00" * 13, "project", state, version, deadline, deadline, since=0)


def name_of(value: object) -> str:
    """Return how a row's value reads in a test's name."""
    return {IN_TIME: "in_time", OVERDUE: "overdue"}[value] if isinstance(value, bool) else str(value)


class PlainReading:
    """An independent implementation of docs/architecture.md 4, without a table."""

    ENDS: ClassVar = {"consumed": "used", "denied": "denied", "cancelled": "cancelled", "expired": "expired"}
    """Final states, and the outcome of every later command."""

    def __init__(self, lifetime: int, pickup_window: int) -> None:
        self.state, self.version = "pending", 1
        self.expires_at = self.deadline = lifetime
        self.pickup_window = pickup_window

    def become(self, state: str) -> None:
        """Change to a state."""
        self.state, self.version = state, self.version + 1

    def over(self, now: int) -> str | None:
        """Return the outcome of a command for a session that has ended or is overdue; None while it lives."""
        return self.ENDS.get(self.state, "expired" if now > self.deadline else None)

    def complete(self, now: int) -> str:
        """Complete a pending session, in time."""
        if self.state != "pending" or now > self.deadline:
            return "refused"
        self.become("completed")
        self.deadline = max(self.expires_at, now + self.pickup_window)
        return "completed"

    def consume(self, now: int) -> str:
        """Consume a completed session, once."""
        if over := self.over(now):
            return over
        if self.state == "pending":
            return "waiting"
        self.become("consumed")
        return "consumed"

    def stop(self, state: str, now: int) -> str:
        """Deny or cancel a session that lives, completed or not."""
        if over := self.over(now):
            return over
        self.become(state)
        return state

    def sweep(self, now: int) -> str:
        """Expire a session that has not ended and is overdue."""
        if self.state not in self.ENDS and now > self.deadline:
            self.become("expired")
            return "expired"
        return "unchanged"

    def expire(self) -> str:
        """An operator ends what is pending, in time or not, and nothing else."""
        if self.state != "pending":
            return "unchanged"
        self.become("expired")
        return "expired"

    def answer(self, trigger: Trigger, now: int) -> str:
        """Apply a trigger; returns its outcome."""
        match trigger:
            case Trigger.COMPLETE:
                return self.complete(now)
            case Trigger.DENY:
                return self.stop("denied", now)
            case Trigger.CANCEL:
                return self.stop("cancelled", now)
            case Trigger.CONSUME:
                return self.consume(now)
            case Trigger.EXPIRE:
                return self.expire()
            case Trigger.DEADLINE:
                return self.sweep(now)


EVERY_CASE = [(state, trigger, overdue) for state in State for trigger in Trigger for overdue in (IN_TIME, OVERDUE)]


def test_every_trigger_has_a_rule_in_every_state() -> None:
    """Nothing is undefined."""
    assert [(state, set(rules)) for state, rules in RULES.items()] == [(state, set(Trigger)) for state in State]


@pytest.mark.parametrize(("state", "trigger", "overdue"), EVERY_CASE, ids=name_of)
def test_machine_decides_by_the_rules(*, state: State, trigger: Trigger, overdue: bool) -> None:
    """The adapter of `transitions` adds nothing and loses nothing."""
    assert decision(state, trigger, overdue=overdue) == RULES[state][trigger][overdue]


@pytest.mark.parametrize(("state", "trigger", "overdue"), EVERY_CASE, ids=name_of)
def test_decision_is_that_of_a_plain_reading(*, state: State, trigger: Trigger, overdue: bool) -> None:
    """Each state answers each trigger as the independent model does, up to the deadline and after it."""
    model, now = PlainReading(DEADLINE, PICKUP_WINDOW), DEADLINE + 1 if overdue else DEADLINE
    model.state = state.value
    outcome = model.answer(trigger, now)
    target = None if model.state == state else State(model.state)
    assert decide(a_session(state), trigger, now) == Decision(target, Outcome(outcome))


# Small numbers, so that many steps fall on a deadline or one millisecond beside it.
@given(
    lifetime=st.integers(1, 12),
    pickup_window=st.integers(1, 12),
    steps=st.lists(st.tuples(st.sampled_from(Trigger), st.integers(0, 6)), max_size=12),
)
def test_any_history_agrees_with_a_plain_reading_of_the_design(
    lifetime: int, pickup_window: int, steps: list[tuple[Trigger, int]]
) -> None:
    """After any series of triggers, state, version, deadline and outcome are those of an independent model."""
    session, model, now = a_session(deadline=lifetime), PlainReading(lifetime, pickup_window), 0
    for trigger, elapsed in steps:
        now += elapsed
        expected = model.answer(trigger, now)
        decided = decide(session, trigger, now)
        after = session_after(session, decided, now, pickup_window)
        assert decided.outcome == expected
        assert (after.state, after.version, after.deadline) == (model.state, model.version, model.deadline)
        # An event is published exactly when the version grows, and its type is the new state's.
        event = event_for(session, after, COMMAND_OF.get(trigger))
        assert (event is not None) == (after.version == session.version + 1)
        if event is not None:
            assert type(event) is FACT_OF[after.state]
        session = after


@given(st.sampled_from(sorted(ENDS)), st.sampled_from(Trigger), st.integers(0, 2 * DEADLINE))
def test_ended_session_stays_as_it_is(state: State, trigger: Trigger, now: int) -> None:
    """Nothing that comes after the end changes a session."""
    session = a_session(state, version=3)
    assert session_after(session, decide(session, trigger, now), now, PICKUP_WINDOW) is session


@pytest.mark.parametrize(
    ("completed_at", "deadline"),
    [(0, DEADLINE), (DEADLINE - PICKUP_WINDOW, DEADLINE), (DEADLINE, DEADLINE + PICKUP_WINDOW)],
)
def test_pickup_window_only_ever_lengthens_a_session(completed_at: int, deadline: int) -> None:
    """A session completed early keeps its deadline; one completed late can still be consumed for the whole window."""
    session = a_session()
    decided = decide(session, COMPLETE, completed_at)
    assert session_after(session, decided, completed_at, PICKUP_WINDOW).deadline == deadline


def test_who_a_login_is_for_is_known_from_its_completion_on() -> None:
    """The subject that a completion brings stays with the session; no other decision brings or changes one."""
    pending = a_session()
    expired = session_after(pending, decide(pending, DEADLINE_PASSED, DEADLINE + 1), DEADLINE + 1, 1, "eve")
    assert expired.login_subject is None
    completed = session_after(pending, decide(pending, COMPLETE, 1), 1, PICKUP_WINDOW, "ada")
    consumed = session_after(completed, decide(completed, CONSUME, 2), 2, PICKUP_WINDOW)
    assert (completed.login_subject, consumed.login_subject) == ("ada", "ada")


def test_a_session_knows_since_when_it_is_in_its_state() -> None:
    """A change of state records its time, from which durations are measured; other decisions leave it as it is."""
    completed = session_after(a_session(), decide(a_session(), COMPLETE, 1), 1, PICKUP_WINDOW)
    refused = session_after(completed, decide(completed, COMPLETE, 2), 2, PICKUP_WINDOW)
    consumed = session_after(completed, decide(completed, CONSUME, 3), 3, PICKUP_WINDOW)
    assert (completed.since, refused.since, consumed.since) == (1, 1, 3)


def test_decisions_leave_nothing_behind() -> None:
    """The one machine of the process holds none of the models it moved (`Machine.models` would hold them for ever)."""
    for _ in range(100):
        decide(a_session(), COMPLETE, 0)
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing).__name__ == "_Case"]
