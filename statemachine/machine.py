"""Decisions over the lifecycle, taken by the package `transitions`. The only module that uses it."""

from collections.abc import Callable, Mapping
from functools import cache
from types import SimpleNamespace

from transitions import EventData, Machine
from transitions.extensions import GraphMachine

from statemachine.lifecycle import RULES, Decision, Outcome, State, Trigger
from statemachine.session import Session, is_overdue


def decide(session: Session, trigger: Trigger, now: int) -> Decision:
    """Return what `trigger` does to `session` at `now` (milliseconds since the epoch, Redis time).

    Pure and synchronous: the same arguments always give the same decision, so a replay decides as the first run did.
    """
    return decision(session.state, trigger, overdue=is_overdue(session, now))


def decision(state: State, trigger: Trigger, *, overdue: bool) -> Decision:
    """Return what `trigger` does to a session in `state`, up to its deadline or after it (`overdue`)."""
    return _decisions()[state, trigger, overdue]


def mermaid() -> str:
    """Return the changes of state in `RULES` as a Mermaid state diagram, drawn by `transitions`."""
    drawn = SimpleNamespace()
    GraphMachine(
        model=drawn,
        states=[state.value for state in State],
        initial=State.PENDING.value,
        transitions=[
            {"trigger": trigger.value, "source": state.value, "dest": decided.target.value}
            for state, rules in RULES.items()
            for trigger, rule in rules.items()
            for decided in rule
            if decided.target
        ],
        auto_transitions=False,
        graph_engine="mermaid",
    )
    text: str = drawn.get_graph().draw(None)
    lines = text.splitlines()
    # Without its styles, which colour the initial state as the current one.
    return "\n".join(line for line in lines[lines.index("stateDiagram-v2") :] if "lass" not in line and line.strip())


@cache
def _decisions() -> Mapping[tuple[State, Trigger, bool], Decision]:
    """Return every decision there is, each taken once by the machine."""
    machine = _machine()
    decisions = {}
    for state in State:
        for trigger in Trigger:
            for overdue in (False, True):
                case = _Case(state, overdue=overdue)
                machine.events[trigger.value].trigger(case)
                target = State(case.state)
                decisions[state, trigger, overdue] = Decision(None if target is state else target, case.outcome)
    return decisions


class _Case:
    """The model that `transitions` moves: one per decision, never registered with the machine."""

    __slots__ = ("outcome", "overdue", "state")

    def __init__(self, state: State, *, overdue: bool) -> None:
        self.state: str = state.value
        self.overdue = overdue
        self.outcome = Outcome.UNKNOWN


def _machine() -> Machine:
    return Machine(
        model=None,
        states=[state.value for state in State],
        initial=State.PENDING.value,
        transitions=[
            {
                "trigger": trigger.value,
                "source": state.value,
                "dest": decided.target.value if decided.target else None,
                condition: _is_overdue,
                "after": _note(decided.outcome),
            }
            for state, rules in RULES.items()
            for trigger, rule in rules.items()
            for condition, decided in (("unless", rule.in_time), ("conditions", rule.overdue))
        ],
        auto_transitions=False,
        send_event=True,
    )


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
