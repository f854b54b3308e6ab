"""The table of families, its words in the documentation, and what one family goes through."""

from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.codes import MAX_PARTITIONS, RefreshToken, mint_refresh_token, new_session_id, parse_refresh_token
from tests.support.named_tests import ROOT
from tests.support.token_desk import refresh_command
from tokens.commands import FamilyCommand, RefreshFamily, RevokeFamily, UpgradeFamily
from tokens.errors import SuccessorSealingError
from tokens.events import event_for
from tokens.family import Family, Opening, family_after, is_alive, opened
from tokens.lifecycle import CONDITIONS, RULES, Condition, Outcome, State, Trigger
from tokens.machine import decide, decision, mermaid
from tokens.sealing import seal, unseal

SESSION_ID = "00" + "ab" * 12
PAGE = (ROOT / "docs/state-machine.md").read_text()
IDLE, LIFE, GRACE = 100, 1_000, 10


def a_family(token: RefreshToken, *, rotates: bool = True, at: int = 0) -> Family:
    """Return a family that was opened just now."""
    opening = Opening(token.family_digest, token.digest, "ada", "p", IDLE, LIFE, rotates=rotates)
    return opened(token.family_id, "p", opening, at, at)


def test_nothing_is_undefined() -> None:
    """Every trigger has a decision in every state under each of its conditions, and the machine takes just that."""
    assert {(state, trigger): set(RULES[state][trigger]) for state, trigger in product(State, Trigger)} == {
        (state, trigger): set(CONDITIONS[trigger]) for state, trigger in product(State, Trigger)
    }
    assert set(Condition) == {condition for conditions in CONDITIONS.values() for condition in conditions}
    for state, trigger in product(State, Trigger):
        for condition in CONDITIONS[trigger]:
            assert decision(state, trigger, condition) == RULES[state][trigger][condition]


def test_every_word_is_documented() -> None:
    """In the tables of docs/state-machine.md that are generated from the same table, and in its diagram."""
    part = PAGE.partition("<!-- family words -->")[2]
    for members in (State, Trigger, Condition, Outcome):
        assert all(f"\n| `{member}` | " in part for member in members)
    assert mermaid() in PAGE


@pytest.mark.parametrize("state", State)
def test_revoked_is_for_ever(state: State) -> None:
    """No decision leads out of it."""
    targets = {decided.target for rules in RULES[state].values() for decided in rules.values()}
    assert targets == ({None} if state is State.REVOKED else {None, State.ACTIVE, State.REVOKED})


def test_times_of_a_family() -> None:
    """Idle since its last refresh, and its whole life since its opening, whichever ends sooner."""
    token = mint_refresh_token(SESSION_ID)
    family = a_family(token)
    assert [is_alive(family, now) for now in (0, IDLE, IDLE + 1)] == [True, True, False]
    late = msgspec.structs.replace(family, refreshed_at=LIFE - 1)
    assert [is_alive(late, now) for now in (LIFE, LIFE + 1)] == [True, False]
    assert not is_alive(msgspec.structs.replace(family, opened_at=5, cutoff=5), 6)
    assert is_alive(msgspec.structs.replace(family, opened_at=6, cutoff=5), 6)


def test_grace_begins_with_the_commit() -> None:
    """Tokens that asked while no worker ran are not stale, however long the first one waited for its decision."""
    token = mint_refresh_token(SESSION_ID)
    first = refresh_command(token)
    family = family_after(a_family(token), first, decide(a_family(token), first, 1, GRACE), 1)
    committed = msgspec.structs.replace(family, rotated_at=50)
    asked = [decide(committed, refresh_command(token), now, GRACE).outcome for now in (2, 50 + GRACE, 51 + GRACE)]
    assert asked == [Outcome.REPEATED, Outcome.REPEATED, Outcome.REUSED]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int]]:
    """Return what happens to a family, and how long after what happened before."""
    step = st.sampled_from(["newest", "before", "older", "forged", "ahead", "revoke", "upgrade"])
    return draw(st.lists(st.tuples(step, st.integers(0, IDLE // 2)), max_size=15))


@given(histories(), st.booleans())
def test_any_history_agrees_with_a_plain_reading(history: list[tuple[str, int]], rotates: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    """Only the newest token, and for the grace the one before, ever gets something; an old one ends it for good."""
    tokens = [mint_refresh_token(SESSION_ID)]
    family, now, revoked, refreshed, rotated = a_family(tokens[0], rotates=rotates), 0, False, 0, 0
    for what, elapsed in history:
        now += elapsed
        command, expected, is_before = _step(what, tokens), Outcome.REFUSED, False
        over = now > min(refreshed + IDLE, LIFE)
        if isinstance(command, RefreshFamily):
            is_before = len(tokens) > 1 and command.token_digest == tokens[-2].digest
        if what == "forged":
            expected = Outcome.UNKNOWN
        elif what == "revoke":
            expected, revoked = Outcome.REVOKED, revoked or not over
        elif revoked or over or what in {"ahead", "upgrade"}:
            expected = Outcome.REFUSED
        elif isinstance(command, RefreshFamily) and command.token_digest == tokens[-1].digest:
            expected = Outcome.ROTATED if rotates else Outcome.KEPT
        elif is_before and now <= rotated + GRACE:
            expected = Outcome.REPEATED
        else:
            expected, revoked = Outcome.REUSED, True
        decided = decide(family, command, now, GRACE)
        assert decided.outcome is expected
        after = family_after(family, command, decided, now)
        assert after.version == family.version + (decided.target is not None)
        assert (event_for(family, after, command, decided) is not None) == (after.state is not family.state)
        if expected is Outcome.ROTATED:
            assert isinstance(command, RefreshFamily)
            refreshed = rotated = now
            tokens.append(_SUCCESSORS[command.successor_digest])
        family = after
        assert (family.state is State.REVOKED) == revoked


_SUCCESSORS: dict[bytes, RefreshToken] = {}


def _step(what: str, tokens: list[RefreshToken]) -> FamilyCommand:
    match what:
        case "revoke":
            return RevokeFamily("c", SESSION_ID, "api", "client")
        case "upgrade":
            return UpgradeFamily("c", SESSION_ID, "api")
        case "ahead":
            asks = tokens[-1].successor()
        case "forged":
            asks = mint_refresh_token(SESSION_ID)
        case _:
            asks = tokens[-min(len(tokens), {"newest": 1, "before": 2, "older": 3}[what])]
    successor = asks.successor()
    _SUCCESSORS[successor.digest] = successor
    return RefreshFamily(
        *("c", SESSION_ID, "api", 1, asks.generation, asks.family_digest, asks.digest, successor.digest, b"")
    )


def test_a_successor_opens_with_the_token_that_asked_for_it_only() -> None:
    """Not with another of the family, and not when a byte was changed."""
    token = mint_refresh_token(SESSION_ID)
    successor = token.successor()
    sealed = seal(successor, token)
    assert unseal(sealed, token) == successor.text
    assert seal(successor, token) != sealed
    assert successor.text.encode() not in sealed
    for other in (successor, mint_refresh_token(SESSION_ID)):
        with pytest.raises(SuccessorSealingError):
            unseal(sealed, other)
    for broken in (sealed[:-1], sealed[:-1] + bytes([sealed[-1] ^ 1]), b"", sealed[:12]):
        with pytest.raises(SuccessorSealingError):
            unseal(broken, token)


@given(st.integers(0, MAX_PARTITIONS - 1), st.integers(0, 3))
def test_a_refresh_token_leads_to_its_family(partition: int, generations: int) -> None:
    """Its parts are those that it was made of; each token of a family proves that it is one."""
    token = first = mint_refresh_token(new_session_id(partition))
    for _ in range(generations):
        token = token.successor()
    assert parse_refresh_token(token.text, MAX_PARTITIONS) == token
    assert (token.generation, token.family_digest) == (generations, first.family_digest)
    assert len(token.text) == 90
    assert parse_refresh_token(token.text, partition) is None


@given(st.text() | st.text("lrt_0123456789abcdefABC-", min_size=80, max_size=100))
def test_any_text_can_be_shown_as_a_refresh_token(text: str) -> None:
    """What is no token is none."""
    token = parse_refresh_token(text, MAX_PARTITIONS)
    assert token is None or token.text == text
