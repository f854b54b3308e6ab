"""What sessions and events take in a real server, against what is reckoned with."""

from collections.abc import Callable, Sequence
from ipaddress import IPv6Address

import msgspec
import pytest
from redis.asyncio import Redis

from projects.worst_case import CONSUMED_BYTES, EVENT_BYTES, FAMILY_BYTES, SESSION_BYTES
from runtime.codes import mint_refresh_token
from statemachine.commands import CancelSession, Command, CompleteSession, ConsumeSession
from statemachine.session import MAX_FACTS_BYTES, ClientFacts, DeviceRequest
from statemachine.store.initiating import Initiated
from tests.support.relay import LIFETIME_MS, PROJECT, Relay
from tokens.family import Opening

SESSIONS = 2_000
BATCH = 200
SLACK = 1.25  # Redis 7.4, for which the figures are, needs up to a sixth more than the Valkey of the tests
LONGEST_FACTS = ClientFacts('"' * 128, '"' * 64, '"' * 64)  # in JSON each character is two
LONGEST_SUBJECT = "\U0001f600" * 256
LONGEST_TOKEN = bytes(8_192)
MONTH_MS = 30 * 86_400_000


def id_of(kind: str, session: Initiated) -> str:
    """Return a command id of the usual length."""
    return f"{kind}{session.session_id}".ljust(32, "0")


async def start(relay: Relay, device: DeviceRequest | None = None) -> list[Initiated]:
    """Start sessions with all that the wire allows, each from an address of its own."""
    return [
        await relay.initiations.initiate(
            PROJECT,
            LONGEST_FACTS,
            LIFETIME_MS,
            address=str(IPv6Address((0x2001_0DB8_FFFF << 80) | (number << 64) | (1 << 64) - 1)),
            code_challenge="x" * 43,
            device=device,
        )
        for number in range(SESSIONS)
    ]


async def decide(relay: Relay, sessions: Sequence[Initiated], command: Callable[[Initiated], Command]) -> None:
    """Record a command for each session, and have them decided."""
    for first in range(0, len(sessions), BATCH):
        for session in sessions[first : first + BATCH]:
            await relay.stream.enqueue(command(session), backlog_limit=SESSIONS, outcome_ms=86_400_000)
        await relay.work()


async def used(relay: Relay) -> int:
    """Return the memory in use but for that of the events."""
    return int((await relay.redis.info("memory"))["used_memory"]) - await of_events(relay.redis, relay.keys.events(0))


async def of_events(redis: Redis, events: str) -> int:
    """Return the memory of a stream."""
    return int(await redis.memory_usage(events, samples=0) or 0)


def is_reckoned(reckoned: int, measured: float) -> bool:
    """Whether a figure is neither too small nor far too large."""
    return measured <= reckoned <= SLACK * measured


@pytest.mark.parametrize("device", [None, DeviceRequest(PROJECT, "cli")])
async def test_abandoned_session_takes_what_is_reckoned(own_relay: Relay, device: DeviceRequest | None) -> None:
    """With the longest facts, pending or given up by its tool, an OAuth client or not."""
    assert sum(map(len, msgspec.structs.astuple(LONGEST_FACTS))) == MAX_FACTS_BYTES
    before = await used(own_relay)
    sessions = await start(own_relay, device)
    pending = (await used(own_relay) - before) / SESSIONS
    await decide(own_relay, sessions, lambda it: CancelSession(id_of("c", it), it.session_id, "api"))
    cancelled = (await used(own_relay) - before) / SESSIONS
    assert is_reckoned(SESSION_BYTES, max(pending, cancelled)), (pending, cancelled)


async def test_consumed_login_and_its_events_take_what_is_reckoned(own_relay: Relay) -> None:
    """With the longest facts and subject, once its token is gone; the events as they are, on the mean."""
    redis, keys = own_relay.redis, own_relay.keys
    before = await used(own_relay)
    sessions = await start(own_relay)
    await decide(
        own_relay,
        sessions,
        lambda it: CompleteSession(id_of("c", it), it.session_id, "api", LONGEST_TOKEN, "a" * 64, LONGEST_SUBJECT),
    )
    await decide(own_relay, sessions, lambda it: ConsumeSession(id_of("d", it), it.session_id, "api", 4_000))
    over = [keys.sealed_token(session.session_id) for session in sessions]
    over += [keys.outcome(0, id_of("d", session)) for session in sessions]
    over += [name async for name in redis.scan_iter("*:initiations:address:*", count=10_000)]
    over += [name async for name in redis.scan_iter("*:login:*", count=10_000)]
    await redis.delete(*over)  # a minute later, or ten
    consumed = (await used(own_relay) - before) / SESSIONS
    assert is_reckoned(CONSUMED_BYTES, consumed), consumed
    events = keys.events(0)
    assert await redis.xlen(events) == 3 * SESSIONS
    of_each = await of_events(redis, events) / (3 * SESSIONS)
    assert is_reckoned(EVENT_BYTES, of_each), of_each


async def test_refresh_token_takes_what_is_reckoned(own_relay: Relay) -> None:
    """With the longest facts, subject and scope, once nothing else of its login is remembered."""
    redis, keys = own_relay.redis, own_relay.keys
    before = await used(own_relay)
    sessions = await start(own_relay)

    def complete(session: Initiated) -> CompleteSession:
        token = mint_refresh_token(session.session_id)
        subject = LONGEST_SUBJECT[len(session.session_id) :] + session.session_id  # each with a list of its own
        opening = Opening(token.family_digest, token.digest, subject, PROJECT, MONTH_MS, MONTH_MS, scope="s" * 256)
        id_ = id_of("c", session)
        return CompleteSession(id_, session.session_id, "api", bytes(90), "a" * 64, subject, opens=opening)

    await decide(own_relay, sessions, complete)
    await decide(own_relay, sessions, lambda it: ConsumeSession(id_of("d", it), it.session_id, "api", 4_000))
    kept = {name async for name in redis.scan_iter("*:famil*", count=10_000)}
    assert len(kept) == 2 * SESSIONS
    others = {name async for name in redis.scan_iter("*", count=10_000)} - kept - {keys.events(0).encode()}
    await redis.delete(*others)  # a day later
    of_each = (await used(own_relay) - before) / SESSIONS
    assert is_reckoned(FAMILY_BYTES, of_each), of_each
