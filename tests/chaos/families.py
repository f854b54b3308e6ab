"""What must hold of refresh tokens after a run: what their tools saw, the events, and the families in Redis."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from redis.asyncio import Redis

from runtime.redis.keys import Keys
from tests.chaos.history import CLOCKS_APART, TOLERANCE, Result

GENERATION = slice(30, 36)  # of a refresh token, in hexadecimal: after `lrt_` and the id
ENDING = {"client": "revoke", "subject": "log out", "reuse": "show an old token"}
"""What a tool or its backend did, by the reason of the revocation that follows from it."""

ACKNOWLEDGED = {"revoke", "log out"}
"""What its success promises the end of a family."""


@dataclass(frozen=True)
class Exchange:
    """One request about a family. Times are seconds of the run's clock."""

    kind: str
    """`refresh`, `show an old token`, `revoke`, `log out` or `introspect`."""
    shown: str
    """The refresh token in it."""
    started: float
    ended: float
    bound: float
    """How long the relay may let it wait, in seconds."""
    result: Result
    """Of an introspection: whether the token is active."""
    answer: str
    received: str = ""
    """The refresh token in its answer; empty: none, so that the old one stays."""


@dataclass
class Family:
    """A login whose tokens the relay minted, as its tool knows it."""

    id: str
    rotates: bool
    handed_over: set[str] = field(default_factory=set)
    """The refresh tokens with which it began: one, however often its answer was repeated."""
    exchanges: list[Exchange] = field(default_factory=list)
    gave_up: str = ""
    """Why its tool did not come to an end."""


class FamilyFact(NamedTuple):
    """An event about a family on the public stream."""

    family_id: str
    type: str
    why: str
    at: float
    """Seconds of the run's clock, to the millisecond."""


class Stored(NamedTuple):
    """A family in Redis at rest."""

    state: str
    version: int
    generation: int


class FamiliesAtRest(NamedTuple):
    """What is in Redis about families when all clients are done."""

    facts: Sequence[FamilyFact] = ()
    stored: Mapping[str, Stored] = {}


@dataclass
class FamilyVerdict:
    """Violations by kind, as in `Verdict`, and how much happened."""

    lost: list[str] = field(default_factory=list)
    """A login that ended although nobody ended it, or a rotation or revocation that was acknowledged and undone."""
    doubled: list[str] = field(default_factory=list)
    """Two successors of a token, a step that skips a version, or tokens that open something after the end."""
    stuck: list[str] = field(default_factory=list)
    """A tool that did not come to an end, or an answer past its bound."""
    families: int = 0
    rotations: int = 0
    repeated: int = 0
    """Requests that got a successor which another request had got."""
    unanswered: int = 0
    """Refreshes whose answer was lost."""
    revoked: int = 0
    logged_out: int = 0
    reused: int = 0


async def look_at_families(redis: Redis, keys: Keys, facts: Sequence[FamilyFact]) -> FamiliesAtRest:
    """Return the families that were opened, as they are in Redis."""
    stored = {}
    for id_ in dict.fromkeys(fact.family_id for fact in facts):
        fields: dict[bytes, bytes] = await redis.execute_command("HGETALL", keys.family(id_))
        if fields:
            stored[id_] = Stored(fields[b"state"].decode(), int(fields[b"version"]), int(fields[b"generation"]))
    return FamiliesAtRest(facts, stored)


def check_families(
    families: Sequence[Family], consumed: Mapping[str, float], at_rest: FamiliesAtRest, lag: float = 0.0
) -> FamilyVerdict:
    """Check everything. `consumed` are the times at which logins were handed over, by session."""
    verdict = FamilyVerdict(families=len(families))
    facts: dict[str, list[FamilyFact]] = defaultdict(list)
    for fact in at_rest.facts:
        facts[fact.family_id].append(fact)
    for id_, known in facts.items():
        if [fact.type for fact in known] not in (["family.opened"], ["family.opened", "family.revoked"]):
            verdict.doubled.append(f"{id_}: the events are {[fact.type for fact in known]}")
        if id_ not in consumed:
            verdict.doubled.append(f"{id_}: opened, but its login was not handed over")
        _check_stored(id_, at_rest.stored.get(id_), known, verdict)
    for family in families:
        _check_family(family, facts[family.id], at_rest.stored.get(family.id), verdict)
        for it in family.exchanges:
            if (wait := it.ended - it.started) > it.bound + TOLERANCE + lag:
                verdict.stuck.append(f"{family.id}: {it.kind} took {wait:.2f} s, bound {it.bound:.0f} s: {it.answer}")
    return verdict


def _check_stored(id_: str, stored: Stored | None, facts: Sequence[FamilyFact], verdict: FamilyVerdict) -> None:
    """Each rotation is one version and one generation, and the revocation is one version more."""
    if stored is None:
        verdict.lost.append(f"{id_}: opened, but it is not in Redis")
        return
    verdict.rotations += stored.generation
    is_revoked = stored.state == "revoked"
    if stored.version != 1 + stored.generation + is_revoked:
        verdict.doubled.append(f"{id_}: {stored} skips a version")
    if is_revoked != any(fact.type == "family.revoked" for fact in facts):
        verdict.lost.append(f"{id_}: {stored}, but the events are {[fact.type for fact in facts]}")


def _check_family(family: Family, facts: Sequence[FamilyFact], stored: Stored | None, verdict: FamilyVerdict) -> None:
    id_ = family.id
    if len(family.handed_over) != 1:
        verdict.doubled.append(f"{id_}: {len(family.handed_over)} refresh tokens were handed over")
    if not facts:
        verdict.lost.append(f"{id_}: handed over, but it was never opened")
    if family.gave_up:
        verdict.stuck.append(f"{id_}: {family.gave_up}, last {family.exchanges[-1:]}")
    _check_successors(family, stored, verdict)
    _check_end(family, facts, verdict)


def _check_successors(family: Family, stored: Stored | None, verdict: FamilyVerdict) -> None:
    """A token has one successor, of the next generation, however often it was shown; none is forgotten."""
    successors: dict[str, set[str]] = defaultdict(set)
    for it in family.exchanges:
        if it.kind == "refresh":
            verdict.unanswered += it.result is Result.UNKNOWN
            if it.received:
                verdict.repeated += it.received in successors[it.shown]
                successors[it.shown].add(it.received)
    for shown, received in successors.items():
        if len(received) > 1:
            verdict.doubled.append(f"{family.id}: {len(received)} successors of generation {_generation(shown)}")
        if not family.rotates or {_generation(it) for it in received} != {_generation(shown) + 1}:
            verdict.doubled.append(f"{family.id}: a successor of generation {_generation(shown)} is of another")
    newest = max(map(_generation, set().union(family.handed_over, *successors.values())), default=0)
    if stored is not None and stored.generation < newest:
        verdict.lost.append(f"{family.id}: generation {newest} was acknowledged, {stored.generation} is there")


def _check_end(family: Family, facts: Sequence[FamilyFact], verdict: FamilyVerdict) -> None:
    """Nothing opens after the end, which somebody asked for; what was acknowledged has happened."""
    id_, revoked = family.id, next((fact for fact in facts if fact.type == "family.revoked"), None)
    asked: dict[str, float] = {}
    for it in sorted(family.exchanges, key=lambda it: it.started):
        if it.kind in ENDING.values():
            asked.setdefault(it.kind, it.started)
    acknowledged = [it.ended for it in family.exchanges if it.kind in ACKNOWLEDGED and it.result is Result.OK]
    verdict.revoked += "revoke" in asked
    verdict.logged_out += "log out" in asked
    verdict.reused += revoked is not None and revoked.why == "reuse"
    if revoked is not None and ENDING.get(revoked.why) not in asked:
        verdict.lost.append(f"{id_}: revoked ({revoked.why}), but nobody did what leads to it: {sorted(asked)}")
    if revoked is None and any(it.kind == "revoke" and it.result is Result.OK for it in family.exchanges):
        verdict.lost.append(f"{id_}: its revocation was acknowledged, but it is not revoked")
    ends = [*acknowledged, *([revoked.at + CLOCKS_APART] if revoked else [])]
    _check_answers(family, min(asked.values(), default=math.inf), min(ends, default=math.inf), verdict)


def _check_answers(family: Family, may_end: float, over: float, verdict: FamilyVerdict) -> None:
    for it in family.exchanges:
        if it.kind == "show an old token" and it.result is Result.OK:
            verdict.doubled.append(f"{family.id}: an old token opened something")
        if it.kind in ("refresh", "introspect"):
            if it.result is Result.OK and it.started > over:
                verdict.doubled.append(f"{family.id}: {it.kind} came to {it.answer} {it.started - over:.2f} s too late")
            if it.result is Result.REFUSED and it.ended < may_end:
                verdict.lost.append(f"{family.id}: {it.kind} came to {it.answer}, but nobody ended this login")


def _generation(token: str) -> int:
    return int(token[GENERATION], 16)
