"""What happened lately, from the events: how many, how fast, to which sessions. Pure; `top` feeds it."""

from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from enum import StrEnum
from itertools import islice

import msgspec

from events.log import LoggedEvent
from statemachine.events import EVENT_TYPES, STATE_AFTER, SessionCompleted, SessionConsumed, SessionInitiated
from statemachine.lifecycle import State
from statemachine.session import ClientFacts

WINDOW = 60  # seconds that rates and latencies cover
KEPT_SESSIONS = 20_000  # the later events of older ones are counted, without a latency

INITIATED, COMPLETED, CONSUMED = (EVENT_TYPES[fact] for fact in (SessionInitiated, SessionCompleted, SessionConsumed))


class Part(StrEnum):
    """The parts of a login whose length is measured."""

    INITIATE_TO_COMPLETE = "initiate_to_complete"
    """A person's part."""
    COMPLETE_TO_CONSUME = "complete_to_consume"
    """The tool's part."""


class RecentSession(msgspec.Struct):
    """A session, as its latest event left it."""

    session_id: str
    state: State
    changed_at: int
    """Milliseconds since the epoch, Redis time, like all times here."""
    initiated_at: int | None = None
    completed_at: int | None = None
    client: str | None = None
    """What the tool calls itself. Unverified."""
    login_subject: str | None = None


class Latency(msgspec.Struct, frozen=True):
    """How long a part took, in milliseconds."""

    count: int
    median_ms: int
    p95_ms: int
    max_ms: int


class _Data(msgspec.Struct):
    client: ClientFacts = ClientFacts()
    login_subject: str | None = None


_decoder = msgspec.json.Decoder(_Data)


class Activity:
    """The last minute, kept up to date event by event."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, Counter[str]]] = deque()
        self._latencies: deque[tuple[int, Part, int]] = deque(maxlen=10_000)
        self._sessions: OrderedDict[str, RecentSession] = OrderedDict()

    def add(self, logged: LoggedEvent) -> None:
        """Take one event, in the order of the log. Events of no session are passed over."""
        event, at = logged.event, logged.entry_id.milliseconds
        if event.type not in STATE_AFTER:
            return
        second = at // 1000
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, Counter()))
        self._seconds[-1][1][event.type] += 1
        data, state = _decoder.decode(event.data), STATE_AFTER[event.type]
        session = self._sessions.setdefault(event.subject, RecentSession(event.subject, state, at))
        self._sessions.move_to_end(event.subject)
        session.state, session.changed_at = state, at
        session.client = data.client.client_name or session.client
        session.login_subject = data.login_subject or session.login_subject
        if event.type == INITIATED:
            session.initiated_at = at
        elif event.type == COMPLETED:
            session.completed_at = at
            self._note(at, Part.INITIATE_TO_COMPLETE, session.initiated_at)
        elif event.type == CONSUMED:
            self._note(at, Part.COMPLETE_TO_CONSUME, session.completed_at)
        while len(self._sessions) > KEPT_SESSIONS:
            self._sessions.popitem(last=False)

    def _note(self, at: int, part: Part, since: int | None) -> None:
        if since is not None:
            self._latencies.append((at, part, at - since))

    def forget(self, now: int) -> None:
        """Let go of what is older than the window."""
        while self._seconds and self._seconds[0][0] < now // 1000 - WINDOW:
            self._seconds.popleft()
        while self._latencies and self._latencies[0][0] < now - WINDOW * 1000:
            self._latencies.popleft()

    def counts(self) -> dict[str, int]:
        """Return how many events of each type there were in the window."""
        total: Counter[str] = Counter(dict.fromkeys(STATE_AFTER, 0))
        for _, counted in self._seconds:
            total.update(counted)
        return dict(total)

    def per_second(self, event_type: str, now: int) -> list[int]:
        """Return how many events of a type there were in each second of the window, the oldest first."""
        by_second = dict(self._seconds)
        first = now // 1000 - WINDOW + 1
        return [by_second.get(first + offset, Counter())[event_type] for offset in range(WINDOW)]

    def latency(self, part: Part) -> Latency | None:
        """Return how long a part took in the window; None if it did not happen."""
        taken = sorted(length for _, of, length in self._latencies if of is part)
        if not taken:
            return None
        return Latency(len(taken), _quantile(taken, 0.5), _quantile(taken, 0.95), taken[-1])

    def recent(self, count: int) -> list[RecentSession]:
        """Return the sessions that changed last, the latest first."""
        return list(islice(reversed(self._sessions.values()), count))


def _quantile(ordered: Sequence[int], share: float) -> int:
    """Return the nearest-rank quantile."""
    return ordered[max(0, -(-len(ordered) * int(share * 100) // 100) - 1)]
