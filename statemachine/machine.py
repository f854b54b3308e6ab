"""Decisions over the lifecycle of a session, taken from its table (`runtime.decision_table`)."""

from collections.abc import Iterator, Mapping
from functools import cache

from runtime import decision_table
from runtime.decision_table import Row
from statemachine.lifecycle import RULES, Decision, Outcome, State, Trigger
from statemachine.session import Session, is_overdue

_IN_TIME, _OVERDUE = "in time", "overdue"


def decide(session: Session, trigger: Trigger, now: int) -> Decision:
    """Return what `trigger` does to `session` at `now` (milliseconds since the epoch, Redis time).

    Pure and synchronous: the same arguments always give the same decision, so a replay decides as the first run did.
    """
    return decision(session.state, trigger, overdue=is_overdue(session, now))


def decision(state: State, trigger: Trigger, *, overdue: bool) -> Decision:
    """Return what `trigger` does to a session in `state`, up to its deadline or after it (`overdue`)."""
    return _decisions()[state, trigger, overdue]


def mermaid() -> str:
    """Return the changes of state in `RULES` as a Mermaid state diagram."""
    return decision_table.mermaid([state.value for state in State], _rows())


@cache
def _decisions() -> Mapping[tuple[State, Trigger, bool], Decision]:
    taken = decision_table.decide_all([state.value for state in State], _rows())
    return {
        (State(state), Trigger(trigger), condition == _OVERDUE): Decision(
            State(decided.target) if decided.target else None, Outcome(decided.outcome)
        )
        for (state, trigger, condition), decided in taken.items()
    }


def _rows() -> Iterator[Row]:
    for state, rules in RULES.items():
        for trigger, rule in rules.items():
            for condition, decided in ((_IN_TIME, rule.in_time), (_OVERDUE, rule.overdue)):
                target = decided.target.value if decided.target else None
                yield Row(state.value, trigger.value, condition, target, decided.outcome.value)
