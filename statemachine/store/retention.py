"""What is remembered of sessions that are over, how long, and how many events are kept."""

from typing import NamedTuple

from statemachine.lifecycle import State
from statemachine.session import Session


class Retention(NamedTuple):
    """How long what is stored is remembered. Times are in milliseconds."""

    remembered_ms: int
    """A completed session, after its deadline; an event."""
    abandoned_ms: int
    """A session that nobody completed, after its deadline or its end, if that is not longer."""
    events_max: int
    """Events, over all partitions."""

    @property
    def pending_ms(self) -> int:
        """Return how long a session is remembered after its deadline if nothing happens to it."""
        return min(self.abandoned_ms, self.remembered_ms)

    def forgotten_at(self, before: Session, after: Session, now: int) -> int:
        """Return when a session is forgotten that a decision taken at `now` made `after` of `before`."""
        if before.state is State.PENDING and after.state is not State.COMPLETED:
            return min(now, after.deadline) + self.pending_ms
        return after.deadline + self.remembered_ms

    def events_share(self, partitions: int) -> int:
        """Return how many events one of `partitions` keeps, rounded up."""
        return -(-self.events_max // partitions)
