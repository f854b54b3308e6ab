"""The lifecycle as data: states, triggers, outcomes, and one row for each of their combinations.

A decision changes nothing: `store/lua/transition.lua` commits it by compare-and-set on (state, version).
"""

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """Where a session is in its life."""

    PENDING = "pending"
    """Nobody has completed it yet."""
    COMPLETED = "completed"
    """It holds a refresh token that no poller has received."""
    CONSUMED = "consumed"
    """One poller has received the token."""
    EXPIRED = "expired"
    """Its time ran out before a token was handed over."""


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
