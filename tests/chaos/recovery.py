"""How long operations that were in progress when a fault struck took to succeed."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from statemachine.commands import CompleteSession, ConsumeSession
from tests.chaos.faults import APART, Kind, Strike
from tests.chaos.history import Attempt, History, Result

COMPLETE, CONSUME = COMMANDS = (CompleteSession.__name__, ConsumeSession.__name__)

OF_RELAY = {Kind.REDIS_KILLED: 5.0, Kind.GROUP_DESTROYED: 3.0}
LIMITS = {Kind.WORKER_KILLED_IN_BATCH: 3.0, Kind.PUBSUB_FORBIDDEN: 3.0, **OF_RELAY}
"""Seconds. For a client that waits; `OF_RELAY` for the relay itself, of Redis' restart from when it serves again.

Without pub/sub a login is looked up twice, once for its change and once for its outcome, each within a second.
"""


LOOK_UPS = 2.0  # seconds that both take at most


class Errand(NamedTuple):
    """One operation of a client, over all its requests. Times are seconds of the run's clock."""

    session_id: str
    command: str
    """`CompleteSession` or `ConsumeSession`."""
    has_rival: bool
    """Whether another client wanted the same, whose command may have done it."""
    started: float
    done: float


class Recovery(NamedTuple):
    """Times to recover from the faults of one kind, in seconds."""

    kind: Kind
    faults: int
    clients: list[float]
    """For each errand under way when a fault struck, until it was done; sorted.

    From the end of the harm, but where a worker was killed from when it could do nothing any more, and without pub/sub
    from when each was begun.
    """
    relay: list[float]
    """For each fault, until a completion and a hand-over had succeeded; sorted."""

    @property
    def within_limit(self) -> bool:
        """Return whether recovery was as quick as promised; a fault after which no login succeeded never recovered."""
        limit = LIMITS.get(self.kind)
        if not self.relay:
            return False
        worst = self.relay if self.kind in OF_RELAY else self.clients
        return limit is None or all(time < limit for time in worst)


def recoveries(history: History, strikes: Sequence[Strike]) -> list[Recovery]:
    """Return the times to recover by kind of fault."""
    errands = sorted(_errands(history), key=lambda errand: errand.done)
    by_kind: dict[Kind, list[Strike]] = defaultdict(list)
    for strike in strikes:
        by_kind[strike.kind].append(strike)
    return [_recovery(kind, by_kind[kind], errands) for kind in Kind if by_kind[kind]]


def quantile(times: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the sorted times lie; 0 if there are none."""
    return times[min(len(times) - 1, int(share * len(times)))] if times else 0.0


def _recovery(kind: Kind, strikes: Sequence[Strike], errands: Sequence[Errand]) -> Recovery:
    clients: list[float] = []
    relay: list[float] = []
    for strike in strikes:
        after = errands[bisect_left(errands, strike.over, key=lambda errand: errand.done) :]
        # Not those in progress at the fault before: their clients may still be waiting because of it.
        struck = [errand for errand in after if strike.at - APART < errand.started <= strike.over]
        if kind is Kind.WORKER_KILLED_IN_BATCH:  # dead to its clients from the moment it was stopped
            struck = [it for it in struck if (it.session_id, it.command) in strike.victims and not it.has_rival]
            clients += [errand.done - max(errand.started, strike.at) for errand in struck]
        elif kind is Kind.PUBSUB_FORBIDDEN:  # nothing stops: operations that begin meanwhile take longer
            begun = [errand for errand in errands if strike.at < errand.started < strike.over - LOOK_UPS]
            clients += [errand.done - errand.started for errand in begun]
        else:
            clients += [errand.done - strike.over for errand in struck]
        if strike.over == strike.at:  # an operation that was nearly done when it struck proves nothing
            after = [errand for errand in after if errand.started > strike.at]
        firsts = [next((errand.done for errand in after if errand.command == command), None) for command in COMMANDS]
        done = [first for first in firsts if first is not None]
        relay += [max(done) - strike.over] if len(done) == len(firsts) else []
    return Recovery(kind, len(strikes), sorted(clients), sorted(relay))


def _errands(history: History) -> list[Errand]:
    return [errand for attempt in history.attempts for errand in _errands_of(attempt)]


def _errands_of(attempt: Attempt) -> list[Errand]:
    completions, polls = attempt.of("complete"), attempt.of("poll")
    completed = min((operation.ended for operation in completions if operation.result is Result.OK), default=None)
    if completed is None:
        return []
    rivals = len({operation.token for operation in completions}) > 1
    errands = [Errand(attempt.session_id, COMPLETE, rivals, completions[0].started, completed)]
    fetched = min((operation.ended for operation in polls if operation.result is Result.OK), default=None)
    if fetched is not None:
        began = max(completed, min(operation.started for operation in polls))
        rivals = len({operation.actor if operation.keyed else "" for operation in polls}) > 1
        errands.append(Errand(attempt.session_id, CONSUME, rivals, min(began, fetched), fetched))
    return errands
