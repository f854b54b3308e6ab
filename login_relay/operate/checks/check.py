"""What `login-relay doctor` finds out: one check each."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from login_relay.operate.relay import Relay

SAMPLED_EVENTS = 500  # the newest of each partition, to see where sessions come from and what becomes of them


class Level(StrEnum):
    """The result of a check."""

    OK = "ok"
    NOTE = "note"
    """Nothing is wrong, but the operator should know it."""
    UNSEEN = "unseen"
    """The server does not allow the check."""
    FINDING = "finding"
    """A promise of the relay does not hold on this server."""


class Check(msgspec.Struct, frozen=True, omit_defaults=True):
    """One check, as `--json` prints it. Fields are only ever added."""

    name: str
    level: Level
    says: str
    type: str | None = None
    """What to type or to set to correct it."""


class Seen(NamedTuple):
    """What a server reports about itself."""

    info: Mapping[str, Any]
    config: Mapping[str, str] | None
    """None if CONFIG is forbidden."""


def config_set(name: str, value: str) -> str:
    """Return what to type to change an option of the server."""
    return f"redis-cli CONFIG SET {name} {value} (and in its redis.conf)"


async def newest_events(relay: Relay, partition: int) -> list[dict[bytes, bytes]]:
    """Return the fields of the newest events of a partition."""
    entries: list[tuple[bytes, dict[bytes, bytes]]] = await relay.redis.execute_command(
        "XREVRANGE", relay.keys.events(partition), "+", "-", "COUNT", SAMPLED_EVENTS
    )
    return [fields for _, fields in entries]
