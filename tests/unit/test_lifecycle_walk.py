"""From each state, trigger and outcome to every place that must know it. CONTRIBUTING.md says how to add one."""

import re
from io import StringIO
from itertools import product
from typing import get_args

import click
import msgspec
import pytest
from prometheus_client import Counter
from rich.console import Console

from events.cloud_event import CloudEvent
from events.cursor import EntryId
from events.log import LoggedEvent
from login_relay.operate.activity import Activity, Part
from login_relay.operate.events import events
from login_relay.operate.sessions import by_name
from login_relay.operate.top import Snapshot, frame
from statemachine.commands import Command
from statemachine.events import EVENT_TYPES, FACT_OF, STATE_AFTER, event_for
from statemachine.lifecycle import CHANGES, ENDS, RULES, Outcome, State, Trigger
from statemachine.machine import decision
from statemachine.session import ClientFacts, TimedSession, session_after
from statemachine.store.inspection import SessionFacts
from tests.support.commands import COMMAND_OF
from tests.support.named_tests import ROOT
from worker.metrics import COMMANDS, LOGINS, TRANSITIONS

SESSION = "00" * 13
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
PAGE = (ROOT / "docs/state-machine.md").read_text()
EVENT_TYPE = {state: EVENT_TYPES[fact] for state, fact in FACT_OF.items()}
states = pytest.mark.parametrize("state", State)


def counted(counter: Counter, **labels: str) -> bool:
    """Whether a counter has a sample with exactly these labels from the start."""
    [metric] = counter.collect()
    return labels in [sample.labels for sample in metric.samples]


def meaning(kind: str, member: str) -> str | None:
    """Return the meaning that docs/state-machine.md gives a state, trigger or outcome."""
    table = PAGE.partition(f"\n| {kind} | meaning |\n")[2].partition("\n\n")[0]
    found = re.search(rf"^\| `{member}` \| (.+) \|$", table, re.MULTILINE)
    return found[1] if found else None


@states
def test_every_state_has_an_event(state: State) -> None:
    """Its type is in both tables, in the documentation, and among those that `login-relay events` filters by."""
    assert STATE_AFTER[EVENT_TYPE[state]] is state
    assert f"\n| `{EVENT_TYPE[state]}` | " in (ROOT / "docs/events.md").read_text()
    assert f"`{EVENT_TYPE[state]}`" in ARCHITECTURE
    [choice] = [option.type for option in events.params if option.name == "types"]
    assert isinstance(choice, click.Choice)
    assert EVENT_TYPE[state] in choice.choices


@pytest.mark.parametrize(("state", "trigger", "overdue"), list(product(State, Trigger, (False, True))))
def test_every_change_makes_the_fact_of_its_state(state: State, trigger: Trigger, *, overdue: bool) -> None:
    """A decision that changes nothing makes no fact."""
    decided = decision(state, trigger, overdue=overdue)
    before = TimedSession(SESSION, "project", state, 1, 0, 0, since=0)
    after = session_after(before, decided, 1, pickup_window_ms=1)
    fact = event_for(before, after, COMMAND_OF.get(trigger))
    assert (None if fact is None else type(fact)) == (decided.target and FACT_OF[decided.target])


@states
def test_every_change_and_every_end_is_counted(state: State) -> None:
    """Each label exists from the start, so that even the first one is seen as an increase."""
    targets = [target for source, target in CHANGES if source is state]
    assert all(counted(TRANSITIONS, source=state, target=target) for target in targets)
    assert counted(LOGINS, outcome=state) == (state in ENDS)
    assert bool(targets) != (state in ENDS)


@states
def test_every_state_has_its_row_in_the_documentation(state: State) -> None:
    """In the table of docs/state-machine.md, in its diagram, and with a meaning."""
    table = PAGE.partition("<!-- state table -->")[2].partition("<!-- end of state table -->")[0]
    assert table.count(f"\n| {state} | ") == 1
    assert f'\n  state "{state}" as {state}\n' in PAGE
    assert meaning("state", state)


@states
def test_every_state_is_seen_by_operators(state: State) -> None:
    """`top` counts its event and lists its sessions, in 80 columns; `sessions show` says since when."""
    data = msgspec.Raw(b'{"project_id":"p"}')
    event = CloudEvent("1.0", f"{SESSION}.1", "login-relay", EVENT_TYPE[state], SESSION, "", data, 1)
    activity = Activity()
    activity.add(LoggedEvent(event, "p", 0, EntryId(1_000, 0), ()))
    assert activity.counts() == dict.fromkeys(STATE_AFTER, 0) | {EVENT_TYPE[state]: 1}
    many = dict.fromkeys(STATE_AFTER, 12_345)
    nothing: dict[str, None] = dict.fromkeys(Part)
    snapshot = Snapshot("2026-01-01T00:00:00.000Z", 60, 0.0, many, dict(nothing), [], [], activity.recent(1))
    console = Console(width=80, file=StringIO())
    with console.capture() as screen:
        console.print(frame(snapshot, [0] * 60, 24))
    lines = screen.get().splitlines()
    assert sum(f"{EVENT_TYPE[state].removeprefix('session.')} 12345" in line for line in lines) == 1
    assert any(re.match(rf"{SESSION} +{state} ", line) for line in lines)
    assert max(map(len, map(str.rstrip, lines))) <= 80
    facts = SessionFacts(SESSION, "p", state, 1, 2, 3, 4, {state: 5}, 6, None, ClientFacts())
    shown = by_name(facts)
    assert shown["state"] == state
    assert state is State.PENDING or shown[f"{state}_at"] == "1970-01-01T00:00:00.005Z"


@pytest.mark.parametrize("trigger", Trigger)
def test_every_trigger_comes_from_a_command_and_is_documented(trigger: Trigger) -> None:
    """Only the deadline comes from none; each trigger has a column in docs/state-machine.md, and a meaning."""
    kinds = [command for command in get_args(Command) if command.trigger is trigger]
    assert len(kinds) == (trigger is not Trigger.DEADLINE)
    assert kinds == ([type(COMMAND_OF[trigger])] if kinds else [])
    assert all(f"`{kind.__name__}`" in ARCHITECTURE for kind in kinds)
    [head] = re.findall(r"^\| from \\ trigger \| (.+) \|$", PAGE, re.MULTILINE)
    assert head.split(" | ").count(trigger) == 1
    assert meaning("trigger", trigger)


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_is_given_counted_and_documented(outcome: Outcome) -> None:
    """A rule gives it, except for two: nothing is decided yet, and there is no such session."""
    given = {(trigger, rule) for rules in RULES.values() for trigger, rule in rules.items()}
    triggers = {trigger for trigger, rule in given if outcome in {decided.outcome for decided in rule}}
    assert bool(triggers) != (outcome in {Outcome.PENDING, Outcome.UNKNOWN})
    for trigger in triggers & COMMAND_OF.keys():
        assert counted(COMMANDS, command=type(COMMAND_OF[trigger]).__name__, outcome=outcome)
    assert counted(COMMANDS, command="CompleteSession", outcome=Outcome.UNKNOWN)
    assert meaning("outcome", outcome)
