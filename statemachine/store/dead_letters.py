"""The dead letters: entries that no worker could decide. An operator can inspect, replay or drop them."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from runtime.errors import LoginRelayError
from runtime.redis.keys import Keys
from runtime.redis.scripts import Script, run_script
from statemachine.commands import ConsumeSession
from tokens.commands import RefreshFamily

PAGE = 500  # dead letters per round trip

_SEALED = frozenset({"sealed_token", "sealed_successor"})
_ANSWERS_A_REQUEST = frozenset({ConsumeSession.__struct_config__.tag, RefreshFamily.__struct_config__.tag})
_REPLAY = Script.named("statemachine.store", "replay")


class NotReplayableError(LoginRelayError):
    """The command belongs to a request that has ended: decided now, the token would reach no client."""


class DeadLetter(NamedTuple):
    """An entry of the stream of dead letters."""

    partition: int
    id: str
    """Its id on this stream. The milliseconds in it are the time when it was moved there."""
    entry: str
    """The id of the entry on the stream of commands."""
    command: bytes
    reason: str
    deliveries: int

    @property
    def moved_at(self) -> int:
        """The time when it was moved: milliseconds since the epoch, Redis time."""
        return int(self.id.partition("-")[0])

    @property
    def fields(self) -> dict[str, object]:
        """The fields of the command, without sealed tokens; empty if it is not a JSON object."""
        with contextlib.suppress(msgspec.DecodeError):
            decoded = msgspec.json.decode(self.command)
            if isinstance(decoded, dict):
                return {str(name): value for name, value in decoded.items() if name not in _SEALED}
        return {}


class DeadLetters:
    """The `dead-letters` streams of all partitions."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def all(self) -> AsyncIterator[DeadLetter]:
        """Yield all dead letters, partition by partition, the oldest first."""
        for partition in self._keys.partitions:
            start = "-"
            while True:
                page: list[tuple[bytes, Mapping[bytes, bytes]]] = await self._redis.execute_command(
                    "XRANGE", self._keys.dead_letters(partition), start, "+", "COUNT", PAGE
                )
                for id_, fields in page:
                    yield _dead_letter(partition, id_, fields)
                if len(page) < PAGE:
                    break
                start = f"({page[-1][0].decode()}"

    async def read(self, partition: int, id_: str) -> DeadLetter | None:
        """Return one dead letter; None if the id is malformed or the dead letter is gone."""
        try:
            found: list[tuple[bytes, Mapping[bytes, bytes]]] = await self._redis.execute_command(
                "XRANGE", self._keys.dead_letters(partition), id_, id_
            )
        except ResponseError:
            return None
        return _dead_letter(partition, *found[0]) if found else None

    async def replay(self, letter: DeadLetter) -> str | None:
        """Put a command back on the stream as a new entry; return the entry's id, or None if the dead letter is gone.

        Raises:
            NotReplayableError: it is a `ConsumeSession` or a `RefreshFamily`. The next request makes a new one.

        """
        kind = letter.fields.get("type")
        if kind in _ANSWERS_A_REQUEST:
            raise NotReplayableError(f"a {kind} answers a request that has ended; the next one makes a new command")
        call = _REPLAY.call(
            dead_letters=self._keys.dead_letters(letter.partition),
            commands=self._keys.commands(letter.partition),
            letter_id=letter.id,
        )
        entry = await run_script(self._redis, _REPLAY, call)
        return entry.decode() if isinstance(entry, bytes) else None

    async def drop(self, letter: DeadLetter) -> bool:
        """Delete a dead letter and return True; False if it is gone."""
        deleted: int = await self._redis.execute_command("XDEL", self._keys.dead_letters(letter.partition), letter.id)
        return deleted == 1


def _dead_letter(partition: int, id_: bytes, fields: Mapping[bytes, bytes]) -> DeadLetter:
    return DeadLetter(
        partition,
        id_.decode(),
        fields[b"entry"].decode(),
        fields[b"command"],
        fields[b"reason"].decode(errors="replace"),
        int(fields[b"deliveries"]),
    )
