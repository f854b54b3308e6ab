"""Entries that are delivered several times and in any order, as redeliveries are."""

import asyncio
import random

import pytest

from statemachine.lifecycle import Outcome
from statemachine.store.command_stream import Entry
from tests.support.relay import Relay

SESSIONS = 12
DELIVERIES = 3
WORKERS = 3
BACKENDS = ("backend 1", "backend 2")
POLLERS = ("poller 1", "poller 2", "poller 3")


async def deliver(relay: Relay, entries: list[Entry], choose: random.Random) -> None:
    """Deliver each entry three times, shuffled, to concurrent workers that know nothing of each other."""
    deliveries = entries * DELIVERIES
    choose.shuffle(deliveries)
    batches = [deliveries[number::WORKERS] for number in range(WORKERS)]
    failures = await asyncio.gather(*(relay.handlers.handle(batch) for batch in batches))
    # A worker that lost the race for a session three times leaves its entry pending, for the next worker.
    left = [failure.entry for failed in failures for failure in failed]
    assert not await relay.handlers.handle(left)


@pytest.mark.parametrize("seed", range(8))
async def test_entries_delivered_thrice_and_shuffled_end_as_if_delivered_once(relay: Relay, seed: int) -> None:
    """State, events and outcomes: one change for each session and version, and one winner among its commands."""
    choose = random.Random(seed)  # noqa: S311 - any order will do
    ids = [(await relay.initiate()).session_id for _ in range(SESSIONS)]
    for backend in BACKENDS:
        for id_ in ids:
            await relay.complete(id_, f"{backend} of {id_}")
    completions = await relay.read(count=100)
    await deliver(relay, completions, choose)
    told = await outcomes(relay, ids, BACKENDS)
    assert [sorted(of_session) for of_session in told] == [[Outcome.COMPLETED, Outcome.REFUSED]] * SESSIONS
    for poller in POLLERS:
        for id_ in ids:
            await relay.consume(id_, f"{poller} of {id_}", patience=60_000)
    # The completions once more, among later entries, as from a worker that slept for that long.
    await deliver(relay, await relay.read(count=100) + completions, choose)
    assert await outcomes(relay, ids, BACKENDS) == told, "what a backend was told has changed"
    consumed = [sorted(of_session) for of_session in await outcomes(relay, ids, POLLERS)]
    assert consumed == [[Outcome.CONSUMED, Outcome.USED, Outcome.USED]] * SESSIONS
    for id_ in ids:
        assert await relay.facts(id_) == [
            ("session.initiated", 1),
            ("session.completed", 2),
            ("session.consumed", 3),
        ]
    assert (await relay.backlog(), await relay.pending()) == (0, 0)


async def outcomes(relay: Relay, ids: list[str], who: tuple[str, ...]) -> list[list[Outcome]]:
    """Return the outcome of each command that has one, by session."""
    found = [[await relay.outcome(id_, f"{name} of {id_}") for name in who] for id_ in ids]
    return [[outcome for outcome in of_session if outcome is not None] for of_session in found]
