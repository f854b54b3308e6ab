"""A lasting connection to one Redis: a wire, and another one when it is lost.

Commands that were not answered are sent again on the next wire, in the same order, because every script is idempotent.
While Redis is away, a command fails after it has seen a few connections fail, so that no caller waits for ever.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError
from redis.exceptions import TimeoutError as RedisTimeoutError

from runtime.redis.wire import Events, Sent, Wire

MAX_SIZE = 4 * 2**20  # bytes under way; Redis needs half a second for so many commands, and they may wait for two
_BACKOFF = ExponentialWithJitterBackoff(base=0.01, cap=0.2)
_LOST = (RedisConnectionError, RedisTimeoutError)

Word = str | bytes | int | float


def packed(words: Sequence[Word]) -> bytes:
    """Return a command as it is sent. Its name may be two words, as in redis-py.

    Raises:
        DataError: an argument has a type that cannot be sent.
        UnicodeError: an argument is not text.

    """
    name = words[0]
    if isinstance(name, str) and " " in name:
        words = (*name.split(), *words[1:])
    try:
        command: bytes = pack_command(words)  # type: ignore[arg-type] # its stub names a tuple of one
    except TypeError:
        raise DataError from None
    return command


class Line:
    """Carries the commands of all tasks of a process. It connects when the first one is sent."""

    def __init__(
        self, dial: Callable[[], AbstractConnection], *, reply_within: float, retries: int, patience: float
    ) -> None:
        """`dial` returns a connection that is not open yet, and does not try again by itself.

        A reply may take `reply_within` seconds. A command is sent `retries` times again if the connection is lost. If
        too much is under way, callers wait for up to `patience` seconds.
        """
        self._dial = dial
        self._reply_within = reply_within
        self._retries = retries
        self._patience = patience
        self._wire: Wire | None = None
        self._unsent: list[Sent] = []
        """Commands that wait for the next wire, in order."""
        self._unsent_size = 0
        self._connecting: asyncio.Task[None] | None = None
        self._losses = 0
        self._waiters: list[asyncio.Future[None]] = []

    def send(self, words: Sequence[Word]) -> "asyncio.Future[Any]":
        """Send a command and return the future of its reply, which may be cancelled.

        The future raises a RedisError if Redis answers with one or cannot be reached, and DataError or UnicodeError if
        the command cannot be sent.
        """
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            command = Sent(reply, packed(words), self._losses)
        except (DataError, UnicodeError) as error:
            reply.set_exception(error)
            return reply
        if self._wire is not None:
            self._wire.send(command)
        else:
            self._keep(command)
            self._connect()
        return reply

    @property
    def is_full(self) -> bool:
        """Whether so much is under way that a caller should wait for `room` before it sends."""
        return (self._unsent_size if self._wire is None else self._wire.size) >= MAX_SIZE

    async def room(self) -> None:
        """Wait until a command may be sent.

        Raises:
            RedisConnectionError: there was no room for the whole patience.

        """
        try:
            async with asyncio.timeout(self._patience):
                while self.is_full:
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiters.append(waiter)
                    await waiter
        except TimeoutError:
            message = "too many commands are under way"
            raise RedisConnectionError(message) from None

    def drop(self, error: Exception) -> None:
        """Close the connection at once, for this reason. Commands that are under way fail or are sent again."""
        if self._wire is not None:
            self._wire.drop(error)

    async def aclose(self) -> None:
        """Wait for the replies to what was sent, then close. A line that is used again connects again."""
        while waiting := [command.reply for command in self._under_way() if not command.reply.done()]:
            await asyncio.wait(waiting)
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        if self._wire is not None:
            await self._wire.aclose()

    def _under_way(self) -> Iterable[Sent]:
        return self._unsent if self._wire is None else self._wire.unanswered

    def _keep(self, command: Sent) -> None:
        self._unsent.append(command)
        self._unsent_size += len(command.packed)

    def _take_unsent(self) -> list[Sent]:
        """Return the commands that wait for a wire, without those whose caller was cancelled. They wait no more."""
        unsent = [command for command in self._unsent if not command.reply.done()]
        self._unsent.clear()
        self._unsent_size = 0
        return unsent

    def _connect(self) -> None:
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        """Open a wire, in more than one attempt if need be, as long as commands wait for it."""
        events = Events(self._lose, self._wake)
        try:
            while self._unsent:
                if losses := self._losses - self._unsent[0].losses:
                    await asyncio.sleep(_BACKOFF.compute(losses))
                try:
                    self._wire = await Wire.open(self._dial(), self._reply_within, events)
                except _LOST as error:
                    self._lose(error, ())
                except Exception as error:  # noqa: BLE001 - Redis refuses: each caller receives it, whatever it is
                    for command in self._take_unsent():
                        command.reply.set_exception(error)
                else:
                    for command in self._take_unsent():
                        self._wire.send(command)
        finally:
            self._connecting = None
            for command in self._take_unsent():  # only if this task was cancelled, at the end of the process
                command.reply.cancel()

    def _lose(self, error: Exception, unanswered: Iterable[Sent]) -> None:
        """Keep the commands that may be sent again, and let the others fail."""
        self._wire = None
        self._losses += 1
        for command in (*unanswered, *self._take_unsent()):
            if command.reply.done():
                continue  # its caller was cancelled
            if self._losses - command.losses > self._retries:
                command.reply.set_exception(error)
            else:
                self._keep(command)
        self._wake()
        if self._unsent:
            self._connect()

    def _wake(self) -> None:
        """Let the callers that wait for room look again when half of what is allowed has been answered."""
        size = self._unsent_size if self._wire is None else self._wire.size
        if self._waiters and size <= MAX_SIZE // 2:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiters.clear()
