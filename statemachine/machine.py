"""The pure decision over the lifecycle. The only module that uses `transitions`."""

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

from transitions import EventData, Machine
from transitions.extensions import GraphMachine

from statemachine.lifecycle import RULES, Decision, Outcome, State, Trigger
from statemachine.session import Session, is_overdue


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
