"""The lifecycle as data, and the pure decision over it. The only module that uses `transitions`.

A decision changes nothing: `lua/transition.lua` commits it by compare-and-set on (state, version).
To add a state, add its member and its rows here, a handler in `worker.handlers`, and a test.
"""

from collections.abc import Callable
from enum import StrEnum
from functools import cache
from types import SimpleNamespace
from typing import NamedTuple

import msgspec
from transitions import EventData, Machine
from transitions.extensions import GraphMachine

from statemachine.session import Session, State


class Trigger(StrEnum):
    """What can happen to a session."""

    COMPLETE = "complete"
    """A backend hands over the refresh token for a login code."""
    CONSUME = "consume"
    """A poller asks for the refresh token."""
    DEADLINE = "deadline"
    """The sweeper found the session in the index of deadlines."""


class Outcome(StrEnum):
    """What became of one command."""

    PENDING = "pending"
    """Recorded on the stream, not decided yet."""
    COMPLETED = "completed"
    """The session holds the refresh token now."""
    CONSUMED = "consumed"
    """This command's poller, and no other, gets the refresh token."""
    WAITING = "waiting"
    """There is no token to consume yet."""
    USED = "used"
    """Another poller got the token before."""
    EXPIRED = "expired"
    """The session's time is over."""
    REFUSED = "refused"
    """The session cannot be completed: it was before, or its time is over."""
    UNCHANGED = "unchanged"
    """The deadline has nothing to end: it was moved, or the session ended before."""
    UNKNOWN = "unknown"
    """There is no such session, or no longer."""


class Rule(NamedTuple):
    """One row of the lifecycle."""

    source: State
    trigger: Trigger
    overdue: bool
    """Whether the row holds after the session's deadline (else it holds up to it)."""
    target: State | None
    """The next state; None leaves state and version as they are."""
    outcome: Outcome


IN_TIME, OVERDUE = False, True

RULES = (
    Rule(State.PENDING, Trigger.COMPLETE, IN_TIME, State.COMPLETED, Outcome.COMPLETED),
    Rule(State.PENDING, Trigger.COMPLETE, OVERDUE, None, Outcome.REFUSED),
    Rule(State.PENDING, Trigger.CONSUME, IN_TIME, None, Outcome.WAITING),
    Rule(State.PENDING, Trigger.CONSUME, OVERDUE, None, Outcome.EXPIRED),
    Rule(State.PENDING, Trigger.DEADLINE, IN_TIME, None, Outcome.UNCHANGED),
    Rule(State.PENDING, Trigger.DEADLINE, OVERDUE, State.EXPIRED, Outcome.EXPIRED),
    Rule(State.COMPLETED, Trigger.COMPLETE, IN_TIME, None, Outcome.REFUSED),
    Rule(State.COMPLETED, Trigger.COMPLETE, OVERDUE, None, Outcome.REFUSED),
    Rule(State.COMPLETED, Trigger.CONSUME, IN_TIME, State.CONSUMED, Outcome.CONSUMED),
    Rule(State.COMPLETED, Trigger.CONSUME, OVERDUE, None, Outcome.EXPIRED),
    Rule(State.COMPLETED, Trigger.DEADLINE, IN_TIME, None, Outcome.UNCHANGED),
    Rule(State.COMPLETED, Trigger.DEADLINE, OVERDUE, State.EXPIRED, Outcome.EXPIRED),
    Rule(State.CONSUMED, Trigger.COMPLETE, IN_TIME, None, Outcome.REFUSED),
    Rule(State.CONSUMED, Trigger.COMPLETE, OVERDUE, None, Outcome.REFUSED),
    Rule(State.CONSUMED, Trigger.CONSUME, IN_TIME, None, Outcome.USED),
    Rule(State.CONSUMED, Trigger.CONSUME, OVERDUE, None, Outcome.USED),
    Rule(State.CONSUMED, Trigger.DEADLINE, IN_TIME, None, Outcome.UNCHANGED),
    Rule(State.CONSUMED, Trigger.DEADLINE, OVERDUE, None, Outcome.UNCHANGED),
    Rule(State.EXPIRED, Trigger.COMPLETE, IN_TIME, None, Outcome.REFUSED),
    Rule(State.EXPIRED, Trigger.COMPLETE, OVERDUE, None, Outcome.REFUSED),
    Rule(State.EXPIRED, Trigger.CONSUME, IN_TIME, None, Outcome.EXPIRED),
    Rule(State.EXPIRED, Trigger.CONSUME, OVERDUE, None, Outcome.EXPIRED),
    Rule(State.EXPIRED, Trigger.DEADLINE, IN_TIME, None, Outcome.UNCHANGED),
    Rule(State.EXPIRED, Trigger.DEADLINE, OVERDUE, None, Outcome.UNCHANGED),
)
"""Every (state, trigger), in time and overdue: nothing is undefined."""


class Decision(NamedTuple):
    """What a command does to a session, before anything is written."""

    target: State | None
    outcome: Outcome


class _Case:
    """The model that `transitions` moves: one per decision, never registered (the machine would hold it for ever)."""

    __slots__ = ("outcome", "overdue", "state")

    def __init__(self, state: State, *, overdue: bool) -> None:
        self.state: str = state.value
        self.overdue = overdue
        self.outcome = Outcome.UNKNOWN


def _case(event: EventData) -> _Case:
    if not isinstance(event.model, _Case):
        raise TypeError
    return event.model


def _is_overdue(event: EventData) -> bool:
    return _case(event).overdue


def _note(outcome: Outcome) -> Callable[[EventData], None]:
    def note(event: EventData) -> None:
        _case(event).outcome = outcome

    return note


@cache
def _machine() -> Machine:
    return Machine(
        model=None,
        states=[state.value for state in State],
        initial=State.PENDING.value,
        transitions=[
            {
                "trigger": rule.trigger.value,
                "source": rule.source.value,
                "dest": rule.target.value if rule.target else None,
                "conditions" if rule.overdue else "unless": _is_overdue,
                "after": _note(rule.outcome),
            }
            for rule in RULES
        ],
        auto_transitions=False,
        send_event=True,
    )


def is_overdue(session: Session, now: int) -> bool:
    """Whether the session's deadline has passed at `now` (milliseconds, Redis time)."""
    return now > session.deadline


def decide(session: Session, trigger: Trigger, now: int) -> Decision:
    """Decide what `trigger` does to `session` at `now` (milliseconds since the epoch, Redis time).

    Pure and synchronous: the same arguments always give the same decision, so a replay decides as the first run did.
    """
    return _decide(session.state, trigger, is_overdue(session, now))


@cache  # one decision for each row of `RULES`
def _decide(state: State, trigger: Trigger, overdue: bool) -> Decision:  # noqa: FBT001 - a cache is called by position
    case = _Case(state, overdue=overdue)
    _machine().events[trigger.value].trigger(case)
    target = State(case.state)
    return Decision(None if target is state else target, case.outcome)


def session_after(
    session: Session, decision: Decision, now: int, pickup_window_ms: int, login_subject: str | None = None
) -> Session:
    """Return the session as it is once `decision`, taken at `now`, is committed; a completion brings `login_subject`.

    A session completed in time can be consumed until `max(expires_at, now + pickup_window_ms)`, however late it was.
    """
    if decision.target is None:
        return session
    after = msgspec.structs.replace(session, state=decision.target, version=session.version + 1, since=now)
    if decision.target is not State.COMPLETED:
        return after
    deadline = max(session.expires_at, now + pickup_window_ms)
    return msgspec.structs.replace(after, deadline=deadline, login_subject=login_subject)


def mermaid() -> str:
    """Return the changes of state in `RULES` as a Mermaid state diagram, drawn by `transitions`."""
    drawn = SimpleNamespace()
    GraphMachine(
        model=drawn,
        states=[state.value for state in State],
        initial=State.PENDING.value,
        transitions=[
            {"trigger": rule.trigger.value, "source": rule.source.value, "dest": rule.target.value}
            for rule in RULES
            if rule.target
        ],
        auto_transitions=False,
        graph_engine="mermaid",
    )
    text: str = drawn.get_graph().draw(None)
    lines = text.splitlines()
    # Without its styles, which colour the initial state as the current one.
    return "\n".join(line for line in lines[lines.index("stateDiagram-v2") :] if "lass" not in line and line.strip())
