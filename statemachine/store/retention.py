"""How long sessions that are over are kept, and how many events."""

from typing import NamedTuple

from statemachine.lifecycle import State
from statemachine.session import Session
from tokens.store.committing import TokenRetention


class Retention(NamedTuple):
    """How long sessions and events are kept. Times are in milliseconds."""

    remembered_ms: int
    """A completed session, after its deadline; an event."""
    abandoned_ms: int
    """A session that nobody completed, after its deadline or its end; at most `remembered_ms`."""
    events_max: int
    """The number of events, over all partitions."""

    @property
    def pending_ms(self) -> int:
        """How long a session is kept after its deadline if nothing happens to it."""
        return min(self.abandoned_ms, self.remembered_ms)

    def forgotten_at(self, before: Session, after: Session, now: int) -> int:
        """Return the time when a session is forgotten that a decision at `now` changed from `before` to `after`."""
        if before.state is State.PENDING and after.state is not State.COMPLETED:
            return min(now, after.deadline) + self.pending_ms
        return after.deadline + self.remembered_ms

    def events_share(self, partitions: int) -> int:
        """Return how many events each of `partitions` keeps, rounded up."""
        return -(-self.events_max // partitions)

    def of_tokens(self, replay_window_ms: int, partitions: int) -> TokenRetention:
        """Return how long families of tokens are kept; their events are in the same streams."""
        return TokenRetention(replay_window_ms, replay_window_ms, self.remembered_ms, self.events_share(partitions))
