"""The lifecycle of a family of refresh tokens as data: states, triggers, conditions, outcomes, and one table.

A decision changes nothing: `store/lua/family.lua` commits it by compare-and-set on (state, version, cut-off).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """Where a family is in its life."""

    ACTIVE = "active"
    """Its newest token opens doors, as long as its time is not over."""
    REVOKED = "revoked"
    """None of its tokens opens anything any more."""


class Trigger(StrEnum):
    """What can happen to a family."""

    REFRESH = "refresh"
    """A tool shows a token of the family and wants new ones."""
    REVOKE = "revoke"
    """The tool, or the backend, ends it."""
    UPGRADE = "upgrade"
    """The anonymous subject became somebody."""


class Condition(StrEnum):
    """What a family and the command that asks are like, beside the family's state."""

    CURRENT = "current"
    """The token that asks is the newest."""
    PREVIOUS = "previous"
    """The token that asks was the newest until just now: the answer with its successor may have been lost."""
    STATIC = "static"
    """The token that asks is the only one: this family does not rotate."""
    STALE = "stale"
    """The token that asks was once the newest. Somebody keeps a copy of it."""
    OVERTAKEN = "overtaken"
    """The token that asks was replaced, and so was its successor, while the command waited: it was shown in time."""
    AHEAD = "ahead"
    """The token that asks is newer than the newest that is stored: a failover of Redis undid a rotation."""
    LOGGED_OUT = "logged out"
    """The subject was logged out everywhere after the family was opened."""
    OVERDUE = "overdue"
    """The family was idle for too long, or its whole life is over."""
    ANONYMOUS = "anonymous"
    """The family is of an anonymous subject."""
    NAMED = "named"
    """The family is of a subject that is not anonymous."""
    ALIVE = "alive"
    """The family's time is not over."""


class Outcome(StrEnum):
    """What became of one command."""

    PENDING = "pending"
    """Recorded on the stream, not decided yet."""
    ROTATED = "rotated"
    """The token has a successor, which is the newest now."""
    REPEATED = "repeated"
    """The token has the successor that it was given before."""
    KEPT = "kept"
    """The token stays the newest."""
    REUSED = "reused"
    """An old token was shown, so that the family is revoked now: a thief has it, or had it."""
    REVOKED = "revoked"
    """The family is revoked, by this command or before it, or its time is over."""
    UPGRADED = "upgraded"
    """The family is of somebody now."""
    REFUSED = "refused"
    """The family is revoked or its time is over, or it is not what the command asks for."""
    UNKNOWN = "unknown"
    """There is no such family, or no longer, or the token was never one of it."""


class Decision(NamedTuple):
    """What a trigger does to a family, before anything is written."""

    target: State | None
    """The state to come into, which may be the same again with a new version; None changes nothing."""
    outcome: Outcome


CONDITIONS: Mapping[Trigger, tuple[Condition, ...]] = {
    Trigger.REFRESH: (
        Condition.CURRENT,
        Condition.PREVIOUS,
        Condition.STATIC,
        Condition.STALE,
        Condition.OVERTAKEN,
        Condition.AHEAD,
        Condition.LOGGED_OUT,
        Condition.OVERDUE,
    ),
    Trigger.REVOKE: (Condition.ALIVE, Condition.OVERDUE),
    Trigger.UPGRADE: (Condition.ANONYMOUS, Condition.NAMED, Condition.LOGGED_OUT, Condition.OVERDUE),
}
"""The conditions that matter to each trigger. In every state one of them holds."""

_ROTATED = Decision(State.ACTIVE, Outcome.ROTATED)
_UPGRADED = Decision(State.ACTIVE, Outcome.UPGRADED)
_REFUSED = Decision(None, Outcome.REFUSED)
_REVOKED_BEFORE = Decision(None, Outcome.REVOKED)

RULES: Mapping[State, Mapping[Trigger, Mapping[Condition, Decision]]] = {
    State.ACTIVE: {
        Trigger.REFRESH: {
            Condition.CURRENT: _ROTATED,
            Condition.PREVIOUS: Decision(None, Outcome.REPEATED),
            Condition.STATIC: Decision(None, Outcome.KEPT),
            Condition.STALE: Decision(State.REVOKED, Outcome.REUSED),
            Condition.OVERTAKEN: _REFUSED,
            Condition.AHEAD: _REFUSED,
            Condition.LOGGED_OUT: Decision(State.REVOKED, Outcome.REFUSED),
            Condition.OVERDUE: _REFUSED,
        },
        Trigger.REVOKE: {
            Condition.ALIVE: Decision(State.REVOKED, Outcome.REVOKED),
            Condition.OVERDUE: _REVOKED_BEFORE,
        },
        Trigger.UPGRADE: {
            Condition.ANONYMOUS: _UPGRADED,
            Condition.NAMED: _REFUSED,
            Condition.LOGGED_OUT: Decision(State.REVOKED, Outcome.REFUSED),
            Condition.OVERDUE: _REFUSED,
        },
    },
    State.REVOKED: {
        Trigger.REFRESH: dict.fromkeys(CONDITIONS[Trigger.REFRESH], _REFUSED),
        Trigger.REVOKE: dict.fromkeys(CONDITIONS[Trigger.REVOKE], _REVOKED_BEFORE),
        Trigger.UPGRADE: dict.fromkeys(CONDITIONS[Trigger.UPGRADE], _REFUSED),
    },
}
"""The lifecycle. Every trigger has a decision in every state under each of its conditions: nothing is undefined."""
