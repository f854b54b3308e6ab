"""Decisions over the lifecycle of a family, taken from its table (`runtime.decision_table`)."""

from collections.abc import Iterator, Mapping
from functools import cache

from runtime import decision_table
from runtime.decision_table import Row
from tokens.commands import FamilyCommand, RefreshFamily
from tokens.family import Family, condition_of, condition_of_token, is_genuine
from tokens.lifecycle import RULES, Condition, Decision, Outcome, State, Trigger


def decide(family: Family, command: FamilyCommand, now: int, grace_ms: int) -> Decision:
    """Return what a command does to a family at `now` (milliseconds since the epoch, Redis time).

    Pure and synchronous: the same arguments always give the same decision. `grace_ms` is as for `decide_refresh`.
    """
    if isinstance(command, RefreshFamily):
        shown = command.generation, command.family_digest, command.token_digest
        return decide_refresh(family, *shown, now, grace_ms)
    return decision(family.state, command.trigger, condition_of(family, command, now))


def decide_refresh(
    family: Family, generation: int, family_digest: bytes, digest: bytes, now: int, grace_ms: int
) -> Decision:
    """Return what a refresh does with the token of these digests, as `decide` does. No command is needed to know it.

    A token that was never one of the family does nothing. `grace_ms` is how long after a rotation the token before may
    ask again.
    """
    if not is_genuine(family, family_digest):
        return Decision(None, Outcome.UNKNOWN)
    condition = condition_of_token(family, generation, digest, now, grace_ms)
    return decision(family.state, Trigger.REFRESH, condition)


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
