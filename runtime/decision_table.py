"""Decisions over a lifecycle that is given as a table, taken by the package `transitions`. No other module uses it.

A table has a row for each state, trigger and condition. The rooms with a lifecycle (`statemachine`, `tokens`) have the
tables; nothing here knows what their words mean.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import NamedTuple

from transitions import EventData, Machine
from transitions.extensions import GraphMachine


class Row(NamedTuple):
    """What one trigger does in one state, under one condition."""

    state: str
    trigger: str
    condition: str
    target: str | None
    """The state to come into, which may be this one again; None changes nothing."""
    outcome: str


class Taken(NamedTuple):
    """A decision as the machine took it."""

    target: str | None
    outcome: str


def decide_all(states: Sequence[str], rows: Iterable[Row]) -> Mapping[tuple[str, str, str], Taken]:
    """Return every decision of a table by state, trigger and condition, each taken once by a machine.

    Pure: afterwards a decision is a look-up, and the same arguments always give the same one.
    """
    rows = list(rows)
    machine = Machine(
        model=None,
        states=list(states),
        initial=states[0],
        transitions=[
            {
                "trigger": row.trigger,
                "source": row.state,
                "dest": row.target,
                "conditions": _is(row.condition),
                "after": _note(row.outcome),
            }
            for row in rows
        ],
        auto_transitions=False,
        send_event=True,
    )
    taken = {}
    for state, trigger, condition, *_ in rows:
        case = _Case(state, condition)
        machine.events[trigger].trigger(case)
        taken[state, trigger, condition] = Taken(case.target, case.outcome)
    return taken


def mermaid(states: Sequence[str], rows: Iterable[Row]) -> str:
    """Return the changes of state in a table as a Mermaid state diagram, drawn by `transitions`."""
    drawn = SimpleNamespace()
    GraphMachine(
        model=drawn,
        states=list(states),
        initial=states[0],
        transitions=[
            {"trigger": row.trigger, "source": row.state, "dest": row.target} for row in rows if row.target is not None
        ],
        auto_transitions=False,
        graph_engine="mermaid",
    )
    text: str = drawn.get_graph().draw(None)
    lines = text.splitlines()
    # Without its styles, which colour the initial state as the current one.
    return "\n".join(line for line in lines[lines.index("stateDiagram-v2") :] if "lass" not in line and line.strip())


class _Case:
    """The model that `transitions` moves: one per decision, never registered with the machine."""

    __slots__ = ("condition", "outcome", "state", "target")

    def __init__(self, state: str, condition: str) -> None:
        self.state = str(state)
        self.condition = condition
        self.target: str | None = None
        self.outcome = ""


def _case(event: EventData) -> _Case:
    if not isinstance(event.model, _Case):
        raise TypeError
    return event.model


def _is(condition: str) -> Callable[[EventData], bool]:
    def holds(event: EventData) -> bool:
        return _case(event).condition == condition

    return holds


def _note(outcome: str) -> Callable[[EventData], None]:
    def note(event: EventData) -> None:
        case = _case(event)
        # Not from the state: a change that leads back to its own state is one all the same.
        case.target, case.outcome = event.transition.dest if event.transition else None, outcome

    return note
