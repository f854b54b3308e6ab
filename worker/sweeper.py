"""The loop that expires sessions whose time is over. Every worker runs it; no leader is needed."""

from runtime.metrics_server import RECONNECTS
from runtime.redis.partitions import EachPartition
from statemachine.errors import UnreadableSessionError
from statemachine.lifecycle import Trigger
from statemachine.machine import decide
from statemachine.session import session_after
from statemachine.store.committing import Commit, Committing, Transition
from statemachine.store.reading import Sessions
from worker.commit import commit

COUNT = 100  # sessions a round


class Sweeper:
    """Expires what is due by Redis time. Two sweepers at once are harmless: the second finds the state changed."""

    def __init__(self, sessions: Sessions, committing: Committing, partitions: range, pickup_window_ms: int) -> None:
        self._sessions = sessions
        self._committing = committing
        self._pickup_window_ms = pickup_window_ms
        self._partitions = EachPartition("sweeper", self._sweep_all, partitions, losses=RECONNECTS)

    async def step(self) -> None:
        """Expire everything that is due now, in each partition."""
        await self._partitions.step()

    async def aclose(self) -> None:
        """Cancel what is under way; sessions that are due stay due."""
        await self._partitions.aclose()

    async def _sweep_all(self, partition: int) -> None:
        while await self._sweep(partition) == COUNT:
            pass

    async def _sweep(self, partition: int) -> int:
        """Expire up to `COUNT` sessions; returns how many were, none of them if Redis refuses its writes."""
        now, due = await self._sessions.due(partition, COUNT)
        if not due:
            return 0
        sessions = await self._sessions.load(due)
        if gone := [session_id for session_id in due if session_id not in sessions]:
            await self._sessions.forget_deadlines(partition, gone)
        transitions = []
        for session in sessions.values():
            if isinstance(session, UnreadableSessionError):
                continue  # a worker of a later version may know better
            decision = decide(session, Trigger.DEADLINE, now)
            after = session_after(session, decision, now, self._pickup_window_ms)
            transitions.append(Transition(session, after, decision, now))
        return (await commit(self._committing, transitions)).count(Commit.COMMITTED)
