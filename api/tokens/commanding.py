"""Records commands for families and waits, for a bounded time, for the outcomes that workers decide."""

from redis.asyncio import Redis

from api.logins.commanding import Commanding, Limits
from api.logins.refusals import Busy
from api.logins.waiting import Answer, Waiting
from api.request.metrics import BACKLOG_FULL
from runtime.redis.keys import Keys
from tokens.commands import FamilyCommand
from tokens.store.recording import record_command


class FamilyCommanding:
    """Records commands for families and waits for their outcomes, like `Commanding` for sessions."""

    def __init__(self, redis: Redis, keys: Keys, waiting: Waiting, commanding: Commanding, limits: Limits) -> None:
        self._redis = redis
        self._keys = keys
        self._waiting = waiting
        self._commanding = commanding
        self._limits = limits

    @property
    def reply_to(self) -> str:
        """The name under which workers reply to this process."""
        return self._commanding.reply_to

    @property
    def patience_ms(self) -> int:
        """How long after its recording a rotation may be committed, so that its request receives the successor."""
        return self._commanding.patience_ms

    async def decide(self, command: FamilyCommand) -> Answer:
        """Record a command and return its outcome.

        Raises:
            Busy: the backlog is full; nothing was recorded.
            NotDoneInTime: the command is on the stream, but no worker decided it in time.

        """
        partition, kind = self._keys.partition_of(command.family_id), type(command).__name__
        with self._waiting.for_outcome(partition, command.id) as reply:
            is_recorded = await record_command(
                self._redis,
                self._keys,
                command,
                backlog_limit=self._limits.backlog,
                outcome_ms=self._limits.replay_window_ms,
            )
            if not is_recorded:
                BACKLOG_FULL.labels(kind).inc()
                raise Busy
            return await self._commanding.in_time(reply, partition, command.id, kind)
