"""Ends pending sessions before their time: records a command for each, in batches, which the workers decide."""

import asyncio
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from login_relay.operate.relay import Relay
from statemachine.commands import ExpireSession
from statemachine.lifecycle import Outcome, State
from statemachine.session import TimedSession
from statemachine.store.command_stream import CommandStream, Moved, Recorded
from statemachine.store.outcomes import AnyOutcome
from statemachine.store.reading import Sessions

BATCH = 500  # sessions of one partition; at most this many commands wait for the workers
LOOK_EVERY = 0.05  # seconds
OPERATOR = "operator"  # the address of the workers' replies; nobody listens, because the outcomes are read


class Ended(NamedTuple):
    """How many sessions were ended, and how many were not."""

    expired: int
    over: int
    """Sessions that were no longer pending."""
    undecided: int
    """Sessions whose command no worker decided in time, or for which no command was recorded."""


async def find_pending(relay: Relay, project_id: str, address: str | None) -> list[str]:
    """Return the pending sessions of a project, or of one client address in it."""
    sessions = Sessions(relay.redis, relay.keys)
    found: list[str] = []
    for partition in relay.keys.partitions:
        for ids in _batches(await sessions.remembered(partition, project_id, address)):
            loaded = await sessions.load(ids)
            found += [
                session_id
                for session_id, session in loaded.items()
                if isinstance(session, TimedSession) and session.state is State.PENDING
            ]
    return found


async def expire(relay: Relay, session_ids: Sequence[str]) -> Ended:
    """End pending sessions and return the counts. It stops if the workers do not decide a batch in time."""
    expired = over = 0
    of_partition: dict[int, list[str]] = {}
    for session_id in session_ids:
        of_partition.setdefault(relay.keys.partition_of(session_id), []).append(session_id)
    for partition, ids in of_partition.items():
        for batch in _batches(ids):
            done = await _expire_batch(relay, partition, batch)
            expired += done.expired
            over += done.over
            if done.undecided:
                return Ended(expired, over, len(session_ids) - expired - over)
    return Ended(expired, over, 0)


def _batches(session_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(session_ids), BATCH):
        yield session_ids[start : start + BATCH]


async def _expire_batch(relay: Relay, partition: int, session_ids: Sequence[str]) -> Ended:
    stream, settings = CommandStream(relay.redis, relay.keys), relay.settings
    commands = [ExpireSession(secrets.token_hex(16), session_id, OPERATOR) for session_id in session_ids]
    recorded = await asyncio.gather(
        *(
            stream.enqueue(command, backlog_limit=settings.backlog_limit, outcome_ms=settings.replay_window_ms)
            for command in commands
        )
    )
    moved = sum(isinstance(answer, Moved) for answer in recorded)
    waiting = [command.id for command, answer in zip(commands, recorded, strict=True) if isinstance(answer, Recorded)]
    outcomes = await wait_for_outcomes(relay, partition, waiting)
    expired = outcomes.count(Outcome.EXPIRED)
    over = moved + len(outcomes) - expired
    return Ended(expired, over, len(commands) - expired - over)


async def wait_for_outcomes(relay: Relay, partition: int, command_ids: list[str]) -> list[AnyOutcome]:
    """Return the outcomes of commands that are known in time."""
    sessions, until = Sessions(relay.redis, relay.keys), time.monotonic() + relay.settings.outcome_wait_ms / 1000
    while command_ids:
        found = await sessions.read_outcomes(partition, command_ids)
        decided: list[AnyOutcome] = [kept.outcome for kept in found if kept and kept.outcome is not Outcome.PENDING]
        if len(decided) == len(command_ids) or time.monotonic() > until:
            return decided
        await asyncio.sleep(LOOK_EVERY)
    return []
