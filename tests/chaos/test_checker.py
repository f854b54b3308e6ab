"""The checker itself: it reports each violation, and nothing else."""

from dataclasses import replace

import pytest

from tests.chaos.checker import AtRest, Fact, Verdict, check
from tests.chaos.faults import Kind, Strike, schedule
from tests.chaos.history import Attempt, History, Operation, Result
from tests.chaos.recovery import recoveries

SESSION = "00aa"
TOKEN = "rt-chaos-1"
INITIATED, COMPLETED, CONSUMED, EXPIRED = (
    Fact(SESSION, f"session.{name}", version, at)
    for name, version, at in (("initiated", 1, 0.0), ("completed", 2, 1.05), ("consumed", 3, 2.05), ("expired", 2, 9.0))
)
DENIED = Fact(SESSION, "session.denied", 3, 2.0)
COMPLETE = Operation("complete", "backend", 1.0, 1.1, 0.0, 7.0, Result.OK, "200", TOKEN)
WAITING = Operation("poll", "tool", 0.0, 0.1, 0.0, 7.0, Result.REFUSED, "waiting")
POLL = Operation("poll", "tool", 2.0, 2.1, 0.0, 7.0, Result.OK, "success", TOKEN)
UNANSWERED = Operation("poll", "tool", 2.0, 2.1, 0.0, 7.0, Result.UNKNOWN, "ServerDisconnectedError")
REST = AtRest(0, 0, 0, [INITIATED, COMPLETED, CONSUMED])


def verdict(*operations: Operation, at_rest: AtRest = REST, ended_as: str = "Login") -> Verdict:
    """Check a run of one login."""
    return check(History([Attempt(SESSION, "lrp_", list(operations), ended_as)]), at_rest)


def test_a_login_that_went_well_is_one() -> None:
    """A poll that is repeated with its key may get the token again."""
    found = verdict(WAITING, COMPLETE, POLL, POLL)

    assert found.holds
    assert found.logins == 1


@pytest.mark.parametrize(
    "facts",
    [
        [COMPLETED, CONSUMED],
        [INITIATED, COMPLETED._replace(version=3), CONSUMED._replace(version=4)],
        [INITIATED, COMPLETED, COMPLETED, CONSUMED],
        [INITIATED, COMPLETED, COMPLETED._replace(version=3), CONSUMED._replace(version=4)],
        [INITIATED, CONSUMED._replace(version=2), COMPLETED._replace(version=3)],
        [INITIATED, COMPLETED, CONSUMED, EXPIRED._replace(version=4)],
        [INITIATED, COMPLETED, DENIED, CONSUMED._replace(version=4)],
    ],
    ids=["no beginning", "version left out", "version twice", "state twice", "wrong order", "after the end", "denied"],
)
def test_a_step_that_is_not_legal_is_seen(facts: list[Fact]) -> None:
    """Legal steps are those of the table of rules, and each raises the version by one."""
    assert verdict(COMPLETE, POLL, at_rest=REST._replace(facts=facts)).doubled


@pytest.mark.parametrize("end", ["denied", "cancelled"])
def test_a_login_that_was_taken_back_hands_no_token_over(end: str) -> None:
    """A completion that nobody receives is then not lost, and one that somebody receives is an error."""
    at_rest = REST._replace(facts=[INITIATED, COMPLETED, DENIED._replace(type=f"session.{end}")])

    assert verdict(COMPLETE, at_rest=at_rest, ended_as=end).holds
    assert verdict(COMPLETE, POLL, at_rest=at_rest).doubled


def test_a_denial_that_left_no_trace_is_seen() -> None:
    """One that was acknowledged is a fact: the events must have it."""
    denied = replace(COMPLETE, kind="deny", token=None)
    at_rest = REST._replace(facts=[INITIATED, DENIED._replace(version=2)])
    assert verdict(denied, at_rest=at_rest, ended_as="denied").holds
    assert verdict(denied, POLL, COMPLETE).lost


def test_a_second_poller_with_the_token_is_seen() -> None:
    """Each poll without a key counts as a poller of its own."""
    assert verdict(COMPLETE, POLL, replace(POLL, actor="other")).doubled


def test_a_second_acknowledged_completion_is_seen() -> None:
    """One session is completed once, with one token."""
    assert verdict(COMPLETE, replace(COMPLETE, token="rt-chaos-2"), POLL).doubled


def test_a_token_that_was_not_the_acknowledged_one_is_seen() -> None:
    """A poller must receive the token of the acknowledged completion."""
    refused = replace(COMPLETE, token="rt-chaos-2", result=Result.REFUSED)

    assert verdict(COMPLETE, refused, replace(POLL, token="rt-chaos-2")).doubled
    assert verdict(replace(COMPLETE, result=Result.UNKNOWN), POLL).holds


def test_an_acknowledged_completion_without_a_token_received_is_seen() -> None:
    """Whether or not the relay believes that it handed over the token."""
    assert verdict(COMPLETE, UNANSWERED, ended_as="LoginUsed").lost
    assert verdict(COMPLETE, at_rest=REST._replace(facts=[INITIATED, COMPLETED]), ended_as="expired").lost
    assert verdict(COMPLETE, POLL, at_rest=REST._replace(facts=[INITIATED])).lost


def test_an_acknowledgement_that_came_before_its_completion_is_seen() -> None:
    """200 from complete means completed."""
    facts = [INITIATED, COMPLETED._replace(at=1.2), CONSUMED]

    assert verdict(COMPLETE, POLL, at_rest=REST._replace(facts=facts)).lost


def test_a_completion_whose_retry_was_refused_is_seen() -> None:
    """With its key the retry must get the same outcome; without one it counts as another backend's."""
    unknown, retry = replace(COMPLETE, result=Result.UNKNOWN), replace(COMPLETE, result=Result.REFUSED)

    assert verdict(unknown, retry, POLL).lost
    assert verdict(replace(unknown, keyed=False), replace(retry, keyed=False), POLL).holds


@pytest.mark.parametrize("first", [COMPLETE, POLL], ids=["complete", "poll"])
def test_an_answer_that_changes_is_seen(first: Operation) -> None:
    """After a success every repeat with the same key gets the same; another key has its own outcome."""
    later = replace(first, started=3.0, ended=3.1, result=Result.REFUSED, answer="no", token=None)

    assert verdict(COMPLETE, POLL, later).lost
    assert verdict(COMPLETE, POLL, replace(later, actor="other")).holds
    assert verdict(COMPLETE, POLL, replace(later, started=0.0)).holds


def test_a_token_sent_to_a_dropped_connection_is_counted_apart() -> None:
    """Only if the poll without an answer had no key, and the session is consumed."""
    found = verdict(COMPLETE, replace(UNANSWERED, keyed=False), ended_as="used")

    assert found.holds
    assert found.dropped == 1
    unconsumed = REST._replace(facts=[INITIATED, COMPLETED])
    assert verdict(COMPLETE, replace(UNANSWERED, keyed=False), at_rest=unconsumed, ended_as="used").lost


def test_a_wait_past_its_bound_is_seen() -> None:
    """One second of tolerance is for the network; the time by which this machine was late is added."""
    assert verdict(COMPLETE, replace(POLL, ended=2.0 + 7.9)).holds
    assert verdict(COMPLETE, replace(POLL, ended=2.0 + 8.1)).stuck
    late = check(
        History([Attempt(SESSION, "lrp_", [COMPLETE, replace(POLL, ended=2.0 + 8.1)], "Login")]), REST, lag=0.2
    )
    assert late.holds


def test_an_initiate_that_is_refused_is_seen() -> None:
    """A run whose clients are refused finds nothing because it does nothing."""
    refused = Operation("initiate", "tool", 0.0, 0.1, 0.0, 7.0, Result.REFUSED, "429")
    assert check(History([Attempt(SESSION, "lrp_", [COMPLETE, POLL], "Login")], [refused]), REST).stuck


def test_a_fault_after_which_nobody_logs_in_is_seen() -> None:
    """Without a login there is no time that could be too long."""
    [recovery] = recoveries(History([]), [Strike(Kind.API_KILLED, at=1.0, over=1.0, alone=True)])
    assert not recovery.within_limit


@pytest.mark.parametrize("ended_as", ["", "gave up", "gave up/used", "ServerUnreachable"])
def test_a_login_without_an_end_is_seen(ended_as: str) -> None:
    """A client whose last request got no answer is stuck."""
    assert verdict(COMPLETE, POLL, ended_as=ended_as).stuck


@pytest.mark.parametrize("left", [{"backlog": 1}, {"pending": 1}, {"pending": -1}, {"deadlines": 1}], ids=str)
def test_what_is_left_at_rest_is_seen(left: dict[str, int]) -> None:
    """Nothing may be left when there is nothing to do."""
    assert verdict(COMPLETE, POLL, at_rest=AtRest(**{**REST._asdict(), **left})).stuck


def test_a_seed_gives_its_schedule_again() -> None:
    """Another seed gives another schedule."""
    assert schedule(7, 60) == schedule(7, 60)
    assert schedule(7, 60) != schedule(8, 60)


@pytest.mark.parametrize("seed", range(5))
def test_the_shortest_run_has_every_kind_of_fault(seed: int) -> None:
    """Each kind that fits into it; a longer run has all. A fault whose recovery is timed has no other near it."""
    faults = schedule(seed, 15)
    alone = [fault for fault in faults if fault.alone]

    assert {fault.kind for fault in faults} == set(Kind) - {Kind.ALL_WORKERS_FROZEN}
    assert {fault.kind for fault in schedule(seed, 60)} == set(Kind)
    assert alone
    assert all(abs(fault.at - other.at) >= 3 for fault in alone for other in faults if other is not fault)
