"""What must hold after a run, by the clients' history and the content of Redis."""

import asyncio
import json
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from runtime.redis.keys import GROUP, Keys
from statemachine.events import STATE_AFTER
from statemachine.lifecycle import CHANGES, ENDS, State
from tests.chaos.families import (
    FamiliesAtRest,
    Family,
    FamilyFact,
    FamilyVerdict,
    check_families,
    look_at_families,
)
from tests.chaos.history import CLOCKS_APART, TOLERANCE, Attempt, History, Result

TAKEN_BACK = {type_ for type_, state in STATE_AFTER.items() if state in ENDS - {State.CONSUMED, State.EXPIRED}}
"""Events after which nobody receives the token of a login, even a completed one: somebody took it back."""
REST = 25.0  # seconds until sessions that no client knows (the answer to initiate was lost) have expired


class Fact(NamedTuple):
    """An event of the public stream."""

    session_id: str
    type: str
    version: int
    at: float
    """Seconds of the run's clock, to the millisecond."""


class AtRest(NamedTuple):
    """What is in Redis when all clients are done and all processes are well."""

    backlog: int
    pending: int
    deadlines: int
    """Sessions that are past their deadline and did not expire."""
    facts: list[Fact]
    families: FamiliesAtRest = FamiliesAtRest()


@dataclass
class Verdict:
    """The violations that were found. Each of the lists holds a line per case."""

    logins: int = 0
    lost: list[str] = field(default_factory=list)
    """An acknowledged completion whose token nobody received and nobody can fetch."""
    doubled: list[str] = field(default_factory=list)
    """A session that more than one poller or backend got, or one that took an illegal step."""
    stuck: list[str] = field(default_factory=list)
    """A wait longer than its bound, a login that does not end, something left behind."""
    dropped: int = 0
    """Tokens sent to a dropped connection whose poll had no Idempotency-Key: nothing can be promised for those."""
    families: FamilyVerdict = field(default_factory=FamilyVerdict)
    """How much was checked of refresh tokens; the violations are in the lists above."""

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, doubled or stuck."""
        return not (self.lost or self.doubled or self.stuck)


async def look_at_rest(redis: Redis, keys: Keys) -> AtRest:
    """Look until nothing is left to do, at most for `REST` seconds."""
    until = time.monotonic() + REST
    while True:
        backlog = int(await redis.xlen(keys.commands(0)))
        pending = await _pending(redis, keys)
        deadlines = int(await redis.zcard(keys.deadlines(0)))
        if not (backlog or pending or deadlines) or time.monotonic() > until:
            break
        await asyncio.sleep(0.2)
    events: list[tuple[bytes, dict[bytes, bytes]]] = await redis.execute_command("XRANGE", keys.events(0), "-", "+")
    offset = time.time() - time.monotonic()  # Redis runs on this machine
    facts = [
        Fact(
            fields[b"subject"].decode(),
            fields[b"type"].decode(),
            int(fields[b"version"]),
            int(id_.partition(b"-")[0]) / 1000 - offset,
        )
        for id_, fields in events
        if b"version" in fields  # audit events are not about a change of state
    ]
    of_families = [
        FamilyFact(
            fields[b"subject"].decode(),
            fields[b"type"].decode(),
            json.loads(fields[b"data"]).get("why", ""),
            int(id_.partition(b"-")[0]) / 1000 - offset,
        )
        for id_, fields in events
        if fields[b"type"].startswith(b"family.")
    ]
    return AtRest(backlog, pending, deadlines, facts, await look_at_families(redis, keys, of_families))


async def _pending(redis: Redis, keys: Keys) -> int:
    """Return how many entries are with a worker; -1 if there is no group to read them in."""
    try:
        return int((await redis.xpending(keys.commands(0), GROUP))["pending"])
    except ResponseError:  # NOGROUP
        return -1


def check(history: History, at_rest: AtRest, lag: float = 0.0, families: Sequence[Family] = ()) -> Verdict:
    """Check everything; `lag` is the longest time, in seconds, by which the machine was late."""
    verdict = Verdict()
    _check_facts(at_rest.facts, verdict)
    times: dict[str, dict[str, float]] = defaultdict(dict)
    for fact in at_rest.facts:
        times[fact.session_id][fact.type] = fact.at
    for attempt in history.attempts:
        _check_attempt(attempt, times[attempt.session_id], verdict)
    for operation in history.initiates:
        if operation.result is Result.REFUSED:
            verdict.stuck.append(f"initiate was refused: {operation.answer}")
    for operation in history.operations():
        wait = operation.ended - operation.started
        if wait > operation.bound + TOLERANCE + lag:
            verdict.stuck.append(
                f"{operation.kind} took {wait:.2f} s, bound {operation.bound:.0f} s: {operation.answer}"
            )
    consumed = {id_: known["session.consumed"] for id_, known in times.items() if "session.consumed" in known}
    found = verdict.families = check_families(families, consumed, at_rest.families, lag)
    verdict.lost += found.lost
    verdict.doubled += found.doubled
    verdict.stuck += found.stuck
    if at_rest.pending < 0:
        verdict.stuck.append("at rest the group is gone")
    elif at_rest.backlog or at_rest.pending:
        verdict.stuck.append(f"at rest {at_rest.backlog} entries on the stream, {at_rest.pending} pending")
    if at_rest.deadlines:
        verdict.stuck.append(f"at rest {at_rest.deadlines} sessions past their deadline")
    return verdict


def _check_facts(facts: Sequence[Fact], verdict: Verdict) -> None:
    """Every session begins as pending with version 1, and takes legal steps, each of exactly one version."""
    seen: dict[str, tuple[State, int]] = {}
    for session_id, type_, version, _ in facts:
        state = STATE_AFTER[type_]
        before = seen.get(session_id)
        if before is None:
            legal = state is State.PENDING and version == 1
        else:
            legal = (before[0], state) in CHANGES and version == before[1] + 1
        if not legal:
            verdict.doubled.append(f"{session_id}: from {before} to {(state, version)}")
        seen[session_id] = (state, version)


def _check_attempt(attempt: Attempt, times: dict[str, float], verdict: Verdict) -> None:
    session_id, received, completed_with = attempt.session_id, attempt.received, attempt.completed_with
    offered = {operation.token for operation in attempt.of("complete")}
    verdict.logins += bool(received)
    acknowledged = min((op.ended for op in attempt.of("complete") if op.result is Result.OK), default=math.inf)
    if "session.initiated" not in times or (completed_with and "session.completed" not in times):
        verdict.lost.append(f"{session_id}: acknowledged, but the events tell {sorted(times)}")
    elif acknowledged + CLOCKS_APART < times.get("session.completed", 0.0):
        verdict.lost.append(f"{session_id}: acknowledged before it was completed")
    if len(received) > 1:
        verdict.doubled.append(f"{session_id}: {len(received)} pollers received the token")
    if len(completed_with) > 1:
        verdict.doubled.append(f"{session_id}: {len(completed_with)} completions acknowledged")
    if not set(received.values()) <= (completed_with or offered):
        verdict.doubled.append(f"{session_id}: received another token than the one that completed it")
    verdict.lost += [f"{session_id}: {told}" for told in _told_otherwise(attempt)]
    refused = {op.token for op in attempt.of("complete") if op.keyed and op.result is Result.REFUSED}
    if refused & set(received.values()):
        verdict.lost.append(f"{session_id}: completed, but its backend's retry with the same key was refused")
    if not attempt.ended_as or "gave up" in attempt.ended_as or attempt.ended_as == "ServerUnreachable":
        verdict.stuck.append(f"{session_id}: {attempt.ended_as or 'did not end'}, last {attempt.operations[-1]}")
    _check_hand_over(attempt, times, verdict)


def _check_hand_over(attempt: Attempt, times: dict[str, float], verdict: Verdict) -> None:
    """An acknowledged completion reaches a poller, or nobody if it was taken back."""
    session_id, taken_back = attempt.session_id, times.keys() & TAKEN_BACK
    if any(op.result is Result.OK for op in attempt.of("deny")) and "session.denied" not in times:
        verdict.lost.append(f"{session_id}: its denial was acknowledged, but the events are {sorted(times)}")
    if taken_back:
        if attempt.received:
            verdict.doubled.append(f"{session_id}: a poller received the token, and {sorted(taken_back)}")
    elif attempt.completed_with and not attempt.received:
        if "session.consumed" in times and _may_be_dropped(attempt):
            verdict.dropped += 1
        else:
            verdict.lost.append(f"{session_id}: acknowledged, never received, ended as {attempt.ended_as}")


def _told_otherwise(attempt: Attempt) -> list[str]:
    """Return clients that got a success and, repeating the request with the same key, a refusal."""
    done: dict[str, float] = {}
    for operation in attempt.operations:  # in the order of their ends
        if operation.result is Result.OK:
            done.setdefault(operation.actor, operation.ended)
    return [
        f"{operation.kind} was done, and with the same key then {operation.answer}"
        for operation in attempt.operations
        if operation.result is Result.REFUSED and done.get(operation.actor, math.inf) < operation.started
    ]


def _may_be_dropped(attempt: Attempt) -> bool:
    """Return whether a poll without Idempotency-Key got no answer, so that the token may be lost with it."""
    return any(poll.result is Result.UNKNOWN and not poll.keyed for poll in attempt.of("poll"))
