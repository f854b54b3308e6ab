"""Reading what streams have missed, at a bounded cost to other requests and to the streams of other projects.

The log is that of all projects, so the cost is not bounded by what a client receives: a stream that goes on from an
early event has all later events of every project read for it.
"""

import asyncio
from weakref import WeakValueDictionary

from redis.asyncio import Redis

from events.cursor import Cursor
from events.log import Batch, EventLog

AT_ONCE = 4  # reads of a process; its Redis client has as many round trips under way
ENTRIES = 256  # a read: a millisecond of the process, then other requests and the next stream have their turn
# Entries, over all streams of a process: 25 times what its logins write under full load, for some 15 % of its time and
# 5 % of Redis'.
PER_SECOND = 50_000


class CatchUps:
    """Lets streams read what they have missed, in turns."""

    def __init__(self, log: EventLog, redis: Redis, *, per_second: float = PER_SECOND) -> None:
        self._log = log
        self._redis = redis
        self._per_second = per_second
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By project id, while any of its streams reads or waits."""
        self._next_at = 0.0

    async def read(self, project_id: str, cursor: Cursor) -> Batch:
        """Return the next of a project's events after a cursor, when it is the project's turn.

        Lock and semaphore are first come, first served, and a project waits for the semaphore with one of its streams.
        So projects have turns one after another, and in them their streams, however many of them one project has.
        """
        clock = asyncio.get_running_loop().time
        turn = self._turns.setdefault(project_id, asyncio.Lock())
        async with turn, self._at_once:
            await asyncio.sleep(self._next_at - clock())
            batch = await self._log.read(self._redis, cursor, entries=ENTRIES, projects=(project_id,))
            self._next_at = max(self._next_at, clock()) + batch.entries / self._per_second
        return batch
