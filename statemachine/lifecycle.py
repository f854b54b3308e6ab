"""The lifecycle as data: states, triggers, outcomes, and what each trigger does in each state.

A decision changes nothing: `store/lua/transition.lua` commits it by compare-and-set on (state, version).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


class _Word(StrEnum):
    """Hashed as the text that it is: `Enum` does it in Python, and these are the keys of every look-up."""

    __hash__ = str.__hash__


class State(_Word):
    """Where a session is in its life."""

    PENDING = "pending"
    """Nobody has completed it yet."""
    COMPLETED = "completed"
    """It holds a refresh token that no poller has received."""
    CONSUMED = "consumed"
    """One poller has received the token."""
    DENIED = "denied"
    """The person, or the backend for them, refused this login."""
    CANCELLED = "cancelled"
    """Its tool gave it up."""
    EXPIRED = "expired"
    """Its time ran out before a token was handed over."""


class Trigger(_Word):
    """What can happen to a session."""

    COMPLETE = "complete"
    """A backend hands over the refresh token for a login code."""
    DENY = "deny"
    """The person does not want this login; if it is completed, it is taken back."""
    CANCEL = "cancel"
    """The tool gives up, for example on Ctrl-C."""
    CONSUME = "consume"
    """A poller asks for the refresh token."""
    EXPIRE = "expire"
    """An operator ends what is pending, as after an attack."""
    DEADLINE = "deadline"
    """The sweeper found the session in the index of deadlines."""


class Outcome(_Word):
    """What became of one command."""

    PENDING = "pending"
    """Recorded on the stream, not decided yet."""
    COMPLETED = "completed"
    """The session holds the refresh token now."""
    DENIED = "denied"
    """The session is denied, by this command or before it."""
    CANCELLED = "cancelled"
    """The session is cancelled, by this command or before it."""
    CONSUMED = "consumed"
    """This command's poller, and no other, gets the refresh token."""
    WAITING = "waiting"
    """There is no token to consume yet."""
    USED = "used"
    """Another poller got the token before."""
    EXPIRED = "expired"
    """The session's time is over."""
    REFUSED = "refused"
    """The session cannot be completed: it was before, it ended, or its time is over."""
    UNCHANGED = "unchanged"
    """The deadline, or an operator, has nothing to end: the session went on, or ended before."""
    UNKNOWN = "unknown"
    """There is no such session, or no longer."""


class Decision(NamedTuple):
    """What a trigger does to a session, before anything is written."""

    target: State | None
    """The next state; None leaves state and version as they are."""
    outcome: Outcome


class Rule(NamedTuple):
    """What one trigger does to sessions of one state."""

    in_time: Decision
    """Up to the session's deadline."""
    overdue: Decision
    """After it, until the sweeper has been there."""


def becomes(state: State) -> Decision:
    """Return the decision to go on to `state`; its outcome has the same name."""
    return Decision(state, Outcome(state.value))


def stays(outcome: Outcome) -> Decision:
    """Return the decision to change nothing."""
    return Decision(None, outcome)


def always(outcome: Outcome) -> Rule:
    """Return the rule to change nothing, in time or overdue."""
    return Rule(in_time=stays(outcome), overdue=stays(outcome))


def end(outcome: Outcome) -> dict[Trigger, Rule]:
    """Return the rules of a state that nothing leaves: what tool and backend ask for gets `outcome`, but a completion.

    A completion is refused; for the deadline and for an operator there is nothing to end.
    """
    return dict.fromkeys(Trigger, always(outcome)) | {
        Trigger.COMPLETE: always(Outcome.REFUSED),
        Trigger.EXPIRE: always(Outcome.UNCHANGED),
        Trigger.DEADLINE: always(Outcome.UNCHANGED),
    }


RULES: Mapping[State, Mapping[Trigger, Rule]] = {
    State.PENDING: {
        Trigger.COMPLETE: Rule(in_time=becomes(State.COMPLETED), overdue=stays(Outcome.REFUSED)),
        Trigger.DENY: Rule(in_time=becomes(State.DENIED), overdue=stays(Outcome.EXPIRED)),
        Trigger.CANCEL: Rule(in_time=becomes(State.CANCELLED), overdue=stays(Outcome.EXPIRED)),
        Trigger.CONSUME: Rule(in_time=stays(Outcome.WAITING), overdue=stays(Outcome.EXPIRED)),
        Trigger.EXPIRE: Rule(in_time=becomes(State.EXPIRED), overdue=becomes(State.EXPIRED)),
        Trigger.DEADLINE: Rule(in_time=stays(Outcome.UNCHANGED), overdue=becomes(State.EXPIRED)),
    },
    State.COMPLETED: {
        Trigger.COMPLETE: always(Outcome.REFUSED),
        Trigger.DENY: Rule(in_time=becomes(State.DENIED), overdue=stays(Outcome.EXPIRED)),
        Trigger.CANCEL: Rule(in_time=becomes(State.CANCELLED), overdue=stays(Outcome.EXPIRED)),
        Trigger.CONSUME: Rule(in_time=becomes(State.CONSUMED), overdue=stays(Outcome.EXPIRED)),
        Trigger.EXPIRE: always(Outcome.UNCHANGED),
        Trigger.DEADLINE: Rule(in_time=stays(Outcome.UNCHANGED), overdue=becomes(State.EXPIRED)),
    },
    State.CONSUMED: end(Outcome.USED),
    State.DENIED: end(Outcome.DENIED),
    State.CANCELLED: end(Outcome.CANCELLED),
    State.EXPIRED: end(Outcome.EXPIRED),
}
"""The lifecycle. Every trigger has a rule in every state: nothing is undefined."""

CHANGES = frozenset(
    (state, decision.target)
    for state, rules in RULES.items()
    for rule in rules.values()
    for decision in rule
    if decision.target
)
"""The changes of state that there are: from which to which."""

CHANGED_BY: Mapping[Trigger, frozenset[State]] = {
    trigger: frozenset(state for state, rules in RULES.items() if rules[trigger].in_time.target) for trigger in Trigger
}
"""The states that a trigger changes, in time. In any other, a command needs no worker: nothing would come of it."""

WAITED_IN = frozenset(
    state for state, rules in RULES.items() if rules[Trigger.CONSUME].in_time.outcome is Outcome.WAITING
)
"""The states in which a poll may be held: when a session leaves one, its pollers get a hint."""

ENDS = frozenset(State) - {source for source, _ in CHANGES}
"""The states that nothing leaves."""
