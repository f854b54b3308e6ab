"""The tables that translate the results of use cases into the Stack dialect's answers."""

from typing import get_args

import pytest

from api.logins.commanding import outcome_of_moved
from api.logins.polling import Pollable
from api.logins.refusals import (
    AccessTokenRequired,
    BackendRequired,
    BindingRequired,
    Busy,
    KeyReused,
    LoginRefusal,
    NotDoneInTime,
    NotPending,
    PolledTooSoon,
    RefreshTokenRequired,
    StoreFull,
    SubjectRequired,
    TooManyLogins,
    TooManyWrongCodes,
    WrongLoginCode,
    WrongPollingCode,
)
from api.request.refusals import RequestRefusal
from api.stack.errors import REFUSALS, KnownError, of_login
from api.stack.poll import word
from statemachine.commands import Command, CompleteSession, ConsumeSession
from statemachine.lifecycle import Outcome, State
from statemachine.store.command_stream import Moved

COMPLETE = CompleteSession("c", "s", "api", b"sealed")
CONSUME = ConsumeSession("c", "s", "api", 1_000)

ANSWERS: list[tuple[LoginRefusal, int, int | None]] = [
    (WrongLoginCode(), 400, None),
    (WrongPollingCode(), 400, None),
    (NotPending(), 400, None),
    (BindingRequired(), 400, None),
    (SubjectRequired(), 400, None),
    (AccessTokenRequired(), 400, None),
    (RefreshTokenRequired(), 400, None),
    (BackendRequired(), 401, None),
    (Busy(), 503, 1),
    (StoreFull(), 503, 10),
    (NotDoneInTime(), 503, 1),
    (KeyReused(), 422, None),
    (TooManyWrongCodes(1), 429, 1),
    (TooManyWrongCodes(1_000), 429, 1),
    (TooManyLogins(1_001), 429, 2),
    (PolledTooSoon("s", 0, 0), 429, 1),
]


@pytest.mark.parametrize(("refusal", "status", "retry_after"), ANSWERS)
def test_refusal_of_a_login_has_its_answer(refusal: LoginRefusal, status: int, retry_after: int | None) -> None:
    """Status and Retry-After, in whole seconds and never before the budget starts again."""
    answer = of_login(refusal)
    assert answer.status == status
    assert (None if isinstance(answer, KnownError) else answer.retry_after) == retry_after


def test_every_refusal_is_rendered() -> None:
    """A refusal without a handler would be answered as a defect of the relay."""
    assert {*get_args(LoginRefusal), *get_args(RequestRefusal)} <= REFUSALS.keys()
    assert {type(refusal) for refusal, *_ in ANSWERS} == set(get_args(LoginRefusal))


def test_every_outcome_of_a_poll_has_a_word_of_its_own() -> None:
    """Clients end on anything but `waiting` (docs/wire.md, section 7)."""
    words = {outcome: word(outcome) for outcome in get_args(Pollable)}
    assert words[Outcome.WAITING] == "waiting"
    assert list(words.values()).count("waiting") == 1


@pytest.mark.parametrize(
    ("command", "state", "overdue", "outcome"),
    [
        (COMPLETE, State.PENDING, True, Outcome.REFUSED),
        (COMPLETE, State.COMPLETED, False, Outcome.REFUSED),
        (COMPLETE, None, False, Outcome.UNKNOWN),
        (CONSUME, State.COMPLETED, True, Outcome.EXPIRED),
        (CONSUME, State.CONSUMED, True, Outcome.USED),
        (CONSUME, State.EXPIRED, False, Outcome.EXPIRED),
        (CONSUME, State.DENIED, False, Outcome.DENIED),
        (CONSUME, State.CANCELLED, True, Outcome.CANCELLED),
        (CONSUME, None, False, Outcome.UNKNOWN),
    ],
)
def test_a_session_that_moved_meanwhile_is_told_as_the_lifecycle_says(
    command: Command, state: State | None, *, overdue: bool, outcome: Outcome
) -> None:
    """The API does not interpret states by itself."""
    assert outcome_of_moved(command, Moved(state, overdue)) is outcome
