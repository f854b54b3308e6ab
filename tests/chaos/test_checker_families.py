"""The checker of refresh tokens: it reports each violation, and nothing else."""

from dataclasses import replace

import pytest

from tests.chaos.checker import AtRest, Fact, check
from tests.chaos.families import Exchange, FamiliesAtRest, Family, FamilyFact, FamilyVerdict, Stored, check_families
from tests.chaos.history import History, Result

FAMILY = "00" + "aa" * 12
FIRST, SECOND, THIRD = (f"lrt_{FAMILY}{generation:06x}secret" for generation in range(3))
OPENED, REVOKED = FamilyFact(FAMILY, "family.opened", "", 1.0), FamilyFact(FAMILY, "family.revoked", "client", 6.0)
ALIVE, OVER = Stored("active", 3, 2), Stored("revoked", 4, 2)
ROTATE = Exchange("refresh", FIRST, 2.0, 2.1, 7.0, Result.OK, "200", SECOND)
AGAIN = Exchange("refresh", SECOND, 3.0, 3.1, 7.0, Result.OK, "200", THIRD)
LOST = replace(ROTATE, result=Result.UNKNOWN, answer="ServerDisconnectedError", received="")
REVOKE = Exchange("revoke", THIRD, 5.9, 6.1, 7.0, Result.OK, "200")
LOG_OUT = replace(REVOKE, kind="log out")
OLD = Exchange("show an old token", FIRST, 5.9, 6.1, 7.0, Result.REFUSED, "400 invalid_grant")
DEAD = Exchange("refresh", THIRD, 7.0, 7.1, 7.0, Result.REFUSED, "400 invalid_grant")
INACTIVE = Exchange("introspect", THIRD, 7.0, 7.1, 7.0, Result.REFUSED, "inactive")
ACTIVE = replace(INACTIVE, result=Result.OK, answer="active")


def verdict(
    *exchanges: Exchange,
    facts: tuple[FamilyFact, ...] = (OPENED,),
    stored: Stored | None = ALIVE,
    family: Family | None = None,
    consumed: bool = True,
) -> FamilyVerdict:
    """Check a run of one family."""
    family = family or Family(FAMILY, rotates=True, handed_over={FIRST})
    family = replace(family, exchanges=list(exchanges))
    at_rest = FamiliesAtRest(facts, {FAMILY: stored} if stored else {})
    return check_families([family], {FAMILY: 1.0} if consumed else {}, at_rest)


def violations(found: FamilyVerdict) -> int:
    """Return how many were found."""
    return len(found.lost + found.doubled + found.stuck)


def test_tokens_that_went_well() -> None:
    """Answers may be lost and repeated, four at once get one successor, and who ends a family ends it."""
    quiet = verdict(LOST, ROTATE, ROTATE, AGAIN, ACTIVE)
    assert violations(quiet) == 0
    assert (quiet.families, quiet.rotations, quiet.repeated, quiet.unanswered) == (1, 2, 1, 1)
    revoked = verdict(ROTATE, AGAIN, REVOKE, INACTIVE, DEAD, facts=(OPENED, REVOKED), stored=OVER)
    assert violations(revoked) == 0
    assert revoked.revoked == 1
    assert violations(verdict(ROTATE, AGAIN, LOG_OUT, INACTIVE, DEAD)) == 0
    stolen = (OPENED, REVOKED._replace(why="reuse"))
    assert violations(verdict(ROTATE, AGAIN, OLD, INACTIVE, DEAD, facts=stolen, stored=OVER)) == 0


def test_families_that_do_not_rotate_keep_their_token() -> None:
    """A successor of such a token is an error."""
    family = Family(FAMILY, rotates=False, handed_over={FIRST})
    kept = replace(ROTATE, received="")
    assert violations(verdict(kept, kept, family=family, stored=Stored("active", 1, 0))) == 0
    assert verdict(ROTATE, family=family, stored=Stored("active", 2, 1)).doubled


def test_a_second_successor_is_seen() -> None:
    """A token has one, whoever asks."""
    assert verdict(ROTATE, replace(ROTATE, received=SECOND + "x"), AGAIN).doubled


def test_a_successor_of_another_generation_is_seen() -> None:
    """It is one generation later."""
    assert verdict(replace(ROTATE, received=THIRD)).doubled


@pytest.mark.parametrize("stored", [Stored("active", 2, 2), Stored("active", 4, 2)], ids=["skipped", "twice"])
def test_a_version_that_is_not_one_more_is_seen(stored: Stored) -> None:
    """Each rotation is one version."""
    assert verdict(ROTATE, AGAIN, stored=stored).doubled


def test_a_rotation_that_was_undone_is_seen() -> None:
    """Who received a successor holds the newest token."""
    assert verdict(ROTATE, AGAIN, stored=Stored("active", 2, 1)).lost


def test_a_login_that_nobody_ended_is_seen() -> None:
    """Whether its tool is refused, or the events tell of a theft that was none."""
    assert verdict(LOST, replace(ROTATE, result=Result.REFUSED, received=""), stored=Stored("active", 1, 0)).lost
    assert verdict(ROTATE, AGAIN, INACTIVE).lost
    stolen = (OPENED, REVOKED._replace(why="reuse"))
    assert verdict(ROTATE, AGAIN, facts=stolen, stored=OVER).lost
    assert verdict(ROTATE, AGAIN, REVOKE, facts=stolen, stored=OVER).lost


@pytest.mark.parametrize("alive", [ACTIVE, replace(DEAD, result=Result.OK)], ids=["introspection", "refresh"])
def test_what_opens_after_the_end_is_seen(alive: Exchange) -> None:
    """From the moment at which the end was acknowledged, or published."""
    assert verdict(ROTATE, AGAIN, REVOKE, alive, facts=(OPENED, REVOKED), stored=OVER).doubled
    assert verdict(ROTATE, AGAIN, LOG_OUT, alive).doubled
    unanswered = replace(REVOKE, result=Result.UNKNOWN)
    assert verdict(ROTATE, AGAIN, unanswered, alive, facts=(OPENED, REVOKED), stored=OVER).doubled
    before = replace(alive, started=6.0)
    assert violations(verdict(ROTATE, AGAIN, REVOKE, before, facts=(OPENED, REVOKED), stored=OVER)) == 0


def test_a_revocation_that_did_not_happen_is_seen() -> None:
    """It was acknowledged."""
    assert verdict(ROTATE, AGAIN, REVOKE).lost


def test_an_old_token_that_opens_something_is_seen() -> None:
    """Nor may it be answered like a repetition."""
    stolen = (OPENED, REVOKED._replace(why="reuse"))
    assert verdict(ROTATE, AGAIN, replace(OLD, result=Result.OK), facts=stolen, stored=OVER).doubled


def test_a_token_that_is_handed_over_twice_is_seen() -> None:
    """A login begins one family, with one token."""
    family = Family(FAMILY, rotates=True, handed_over={FIRST, FIRST + "x"})
    assert verdict(family=family, stored=Stored("active", 1, 0)).doubled
    assert verdict(stored=Stored("active", 1, 0), consumed=False).doubled


@pytest.mark.parametrize(
    "facts",
    [(OPENED, OPENED), (REVOKED,), (REVOKED, OPENED), (OPENED, REVOKED, REVOKED), (OPENED._replace(type="family.x"),)],
    ids=["opened twice", "not opened", "wrong order", "revoked twice", "unknown"],
)
def test_events_that_are_not_a_family_s_are_seen(facts: tuple[FamilyFact, ...]) -> None:
    """It is opened once, and then revoked once at most."""
    assert verdict(ROTATE, AGAIN, REVOKE, facts=facts, stored=OVER).doubled


@pytest.mark.parametrize(
    ("facts", "stored"),
    [((), None), ((OPENED,), None), ((OPENED,), OVER), ((OPENED, REVOKED), ALIVE)],
    ids=["never opened", "gone", "no event", "event only"],
)
def test_events_and_families_that_differ_are_seen(facts: tuple[FamilyFact, ...], stored: Stored | None) -> None:
    """A change and its event are one commit."""
    assert verdict(ROTATE, AGAIN, REVOKE, facts=facts, stored=stored).lost


def test_a_tool_that_waits_for_ever_is_seen() -> None:
    """One that got no answer in all its tries, or an answer too late."""
    family = Family(FAMILY, rotates=True, handed_over={FIRST}, gave_up="gave up to refresh")
    assert verdict(LOST, family=family).stuck
    assert verdict(replace(ROTATE, ended=10.5), AGAIN).stuck


def test_violations_of_families_are_in_the_verdict_of_the_run() -> None:
    """What holds for a run holds for its tokens too."""
    session = [Fact(FAMILY, "session.initiated", 1, 0.0)]
    at_rest = AtRest(0, 0, 0, session, FamiliesAtRest((OPENED,), {}))
    found = check(History(), at_rest, families=[Family(FAMILY, rotates=True, gave_up="gave up to refresh")])
    assert found.lost
    assert found.doubled
    assert found.stuck
