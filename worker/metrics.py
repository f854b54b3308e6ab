"""What a worker counts. Names and labels are part of the interface: `deploy/` and the documentation use them."""

import collections
from collections.abc import Sequence
from functools import cache
from typing import get_args

from prometheus_client import Counter, Histogram

from statemachine.commands import Command
from statemachine.lifecycle import CHANGES, ENDS, RULES, Outcome, State
from statemachine.store.committing import Commit, Transition
from tokens import lifecycle as families
from tokens.commands import FamilyCommand
from tokens.store.committing import FamilyChange, FamilyCommit

LOGIN_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""Seconds: programs complete within milliseconds, people within minutes."""

COMMANDS = Counter(
    "login_relay_commands",
    "Commands decided, by what became of them (`late`: nobody waited any more).",
    ["command", "outcome"],
)
FAMILIES = Counter("login_relay_families", "Families of refresh tokens that were opened or revoked.", ["change"])
TRANSITIONS = Counter("login_relay_transitions", "Changes of a session's state.", ["source", "target"])
LOGINS = Counter("login_relay_logins", "Sessions that ended, by the state they ended in.", ["outcome"])
EXPIRIES = Counter("login_relay_expiries", "Sessions that ran out of time, by the state they were in.", ["state"])
INITIATE_TO_COMPLETE = Histogram(
    "login_relay_initiate_to_complete_seconds",
    "From a session's start to its completion, Redis time.",
    buckets=LOGIN_BUCKETS,
)
COMPLETE_TO_CONSUME = Histogram(
    "login_relay_complete_to_consume_seconds",
    "From a session's completion to its token's hand-over, Redis time.",
    buckets=LOGIN_BUCKETS,
)
CONFLICTS = Counter(
    "login_relay_conflicts",
    "Decisions on what had changed meanwhile (compare-and-set); of deadlines, because every worker sweeps.",
    ["trigger"],
)
REDELIVERIES = Counter("login_relay_redeliveries", "Entries taken over from a worker that did not finish them.")
DEAD_LETTERS = Counter("login_relay_dead_letters", "Entries moved to the dead letters.")

# Present from the start, so that the first of each is seen as an increase.
for _command in get_args(Command):
    for _rules in RULES.values():
        for _decision in _rules[_command.trigger]:
            COMMANDS.labels(_command.__name__, _decision.outcome)
    COMMANDS.labels(_command.__name__, Outcome.UNKNOWN)
for _family_command in get_args(FamilyCommand):
    for _of_family in families.RULES.values():
        for _decided in _of_family[_family_command.trigger].values():
            COMMANDS.labels(_family_command.__name__, _decided.outcome)
    COMMANDS.labels(_family_command.__name__, families.Outcome.UNKNOWN)
for _change in ("opened", "revoked"):
    FAMILIES.labels(_change)
for _trigger in ("command", "deadline"):
    CONFLICTS.labels(_trigger)
for _source, _target in sorted(CHANGES):
    TRANSITIONS.labels(_source, _target)
    if _target in ENDS:
        LOGINS.labels(_target)
    if _target is State.EXPIRED:
        EXPIRIES.labels(_source)

# Kept, because looking one up costs more than counting.
_commands, _transitions, _logins = cache(COMMANDS.labels), cache(TRANSITIONS.labels), cache(LOGINS.labels)
_conflicts, _expiries = cache(CONFLICTS.labels), cache(EXPIRIES.labels)


def count(transitions: Sequence[Transition], commits: Sequence[Commit]) -> None:
    """Count what became of decisions. Each counter is increased once, because it has a lock."""
    counted: collections.Counter[Counter] = collections.Counter()
    for transition, commit in zip(transitions, commits, strict=True):
        command, decision = transition.command, transition.decision
        if commit is Commit.CONFLICT:
            counted[_conflicts("command" if command else "deadline")] += 1
        elif commit is Commit.LATE and command:
            counted[_commands(type(command).__name__, commit)] += 1
        elif commit is Commit.COMMITTED:
            if command:
                counted[_commands(type(command).__name__, decision.outcome)] += 1
            if decision.target:
                _count_change(transition, decision.target, counted)
    for counter, number in counted.items():
        counter.inc(number)


def _count_change(transition: Transition, target: State, counted: "collections.Counter[Counter]") -> None:
    before = transition.before
    counted[_transitions(before.state, target)] += 1
    seconds = max(0, transition.now - before.since) / 1000
    if target is State.COMPLETED:
        INITIATE_TO_COMPLETE.observe(seconds)
    elif target is State.CONSUMED:
        COMPLETE_TO_CONSUME.observe(seconds)
        counted[FAMILIES.labels("opened")] += before.opens is not None
    elif target is State.EXPIRED:
        counted[_expiries(before.state)] += 1
    if target in ENDS:
        counted[_logins(target)] += 1


def count_family(change: FamilyChange, commit: FamilyCommit) -> None:
    """Count what became of a decision about a family. Each refresh shows here, and publishes no event."""
    kind, decision = type(change.command).__name__, change.decision
    if commit is FamilyCommit.CONFLICT:
        CONFLICTS.labels("command").inc()
    elif commit is FamilyCommit.LATE:
        _commands(kind, commit).inc()
    elif commit is FamilyCommit.COMMITTED:
        _commands(kind, decision.outcome).inc()
        if decision.target is families.State.REVOKED:
            FAMILIES.labels("revoked").inc()
