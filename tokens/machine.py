"""Decisions over the lifecycle of a family, taken from its table (`runtime.decision_table`)."""

from collections.abc import Iterator, Mapping
from functools import cache

from runtime import decision_table
from runtime.decision_table import Row
from tokens.commands import FamilyCommand, RefreshFamily
from tokens.family import Family, condition_of, is_genuine
from tokens.lifecycle import RULES, Condition, Decision, Outcome, State, Trigger


def decide(family: Family, command: FamilyCommand, now: int, grace_ms: int) -> Decision:
    """Return what a command does to a family at `now` (milliseconds since the epoch, Redis time).

    Pure and synchronous: the same arguments always give the same decision. A token that was never one of the family
    does nothing. `grace_ms` is how long after a rotation the token before may ask again.
    """
    if isinstance(command, RefreshFamily) and not is_genuine(family, command.family_digest):
        return Decision(None, Outcome.UNKNOWN)
    return decision(family.state, command.trigger, condition_of(family, command, now, grace_ms))


def decision(state: State, trigger: Trigger, condition: Condition) -> Decision:
    """Return what `trigger` does to a family in `state`; `condition` is one of those of the trigger."""
    return _decisions()[state, trigger, condition]


def mermaid() -> str:
    """Return the changes in `RULES` as a Mermaid state diagram."""
    return decision_table.mermaid([state.value for state in State], _rows())


@cache
def _decisions() -> Mapping[tuple[State, Trigger, Condition], Decision]:
    taken = decision_table.decide_all([state.value for state in State], _rows())
    return {
        (State(state), Trigger(trigger), Condition(condition)): Decision(
            State(decided.target) if decided.target else None, Outcome(decided.outcome)
        )
        for (state, trigger, condition), decided in taken.items()
    }


def _rows() -> Iterator[Row]:
    for state, rules in RULES.items():
        for trigger, by_condition in rules.items():
            for condition, decided in by_condition.items():
                target = decided.target.value if decided.target else None
                yield Row(state.value, trigger.value, condition.value, target, decided.outcome.value)
