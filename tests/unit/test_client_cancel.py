import asyncio
import json
from collections.abc import Callable, Generator
from dataclasses import replace
from itertools import chain, repeat

import pytest

from login_relay_client.failures import LoginExpired
from login_relay_client.request import LoginRequest, Prompt
from login_relay_client.steps import (
    CancelRequest,
    HttpRequest,
    NoResponse,
    Reply,
    Sleep,
    Step,
    login_steps,
)
from tests.support.scripted_login import (
    EXPIRED,
    GRACE,
    LIFETIME,
    LOST,
    POLLING_CODE,
    REQUEST,
    SUCCESS,
    USED,
    WAITING,
    answer,
    initiated,
    run,
    script,
)

Steps = Generator[Step, Reply, None]

SCHEMA_ERROR = answer(400, {"code": "SCHEMA_ERROR", "error": "body contains unknown properties"})


def at_the_prompt(request: LoginRequest = REQUEST) -> Steps:
    """Return the steps of a login, up to where it shows its code."""
    steps = login_steps(request)
    next(steps)
    assert isinstance(steps.send(initiated()), Prompt)
    return steps


def at_a_poll() -> Steps:
    """Return the steps of a login, up to its first poll."""
    steps = at_the_prompt()
    step = steps.send(None)
    assert isinstance(step, HttpRequest)
    assert step.path == "/api/v1/auth/cli/poll"
    return steps


def at_a_pause() -> Steps:
    """Return the steps of a login, up to the pause after its first poll."""
    steps = at_a_poll()
    assert isinstance(steps.send(WAITING), Sleep)
    return steps


INTERRUPTIONS = [KeyboardInterrupt(), SystemExit(1), asyncio.CancelledError(), OSError("no terminal")]


@pytest.mark.parametrize("interruption", INTERRUPTIONS, ids=repr)
@pytest.mark.parametrize("login", [at_the_prompt, at_a_poll, at_a_pause])
@pytest.mark.parametrize("reply", [answer(200, {}), answer(404, "Not Found"), answer(503), SUCCESS, LOST, None])
def test_an_interrupted_login_is_cancelled_once(
    login: Callable[[], Steps], interruption: BaseException, reply: Reply
) -> None:
    """The next step is a cancel; then the same exception is raised, whatever the answer (docs/wire.md, Cancel)."""
    steps = login()
    cancel = steps.throw(interruption)

    assert isinstance(cancel, CancelRequest)
    assert cancel.path == "/api/v1/auth/cli/cancel"
    assert cancel.timeout == 1.0
    with pytest.raises(type(interruption)) as raised:
        steps.send(reply)
    assert raised.value is interruption


def test_a_cancel_carries_what_a_poll_does() -> None:
    """The same polling code, verifier, project and key. No Prefer, no Idempotency-Key."""
    this = run(chain(script(), repeat((0.0, WAITING))))

    poll, (_, cancel) = this.polls[0][1], this.requests[-1]
    assert isinstance(cancel, CancelRequest)
    assert cancel.body == poll.body
    assert json.loads(cancel.body).keys() == {"polling_code", "code_verifier"}
    assert poll.headers == {**cancel.headers, "prefer": "wait=25", "idempotency-key": poll.headers["idempotency-key"]}


def test_an_unbound_login_is_cancelled_without_a_verifier() -> None:
    """A server that refused the challenge would refuse the verifier."""
    steps = login_steps(replace(REQUEST, allow_unbound=True))
    next(steps)
    steps.send(SCHEMA_ERROR)
    steps.send(initiated())
    cancel = steps.throw(KeyboardInterrupt())

    assert isinstance(cancel, CancelRequest)
    assert json.loads(cancel.body) == {"polling_code": POLLING_CODE}


def test_an_interruption_before_there_is_a_code_is_raised_at_once() -> None:
    """There is no polling code yet to cancel with."""
    for replies in ([], [LOST], [SCHEMA_ERROR]):
        steps = login_steps(replace(REQUEST, allow_unbound=True))
        next(steps)
        for reply in replies:
            steps.send(reply)
        with pytest.raises(KeyboardInterrupt):
            steps.throw(KeyboardInterrupt())


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, asyncio.CancelledError])
def test_a_second_interruption_ends_the_cancel_too(interrupt: type[BaseException]) -> None:
    """It is raised at once; no second cancel follows."""
    steps = at_a_poll()
    steps.throw(KeyboardInterrupt())

    with pytest.raises(interrupt):
        steps.throw(interrupt())


def test_the_clients_own_timeout_cancels_the_login_once() -> None:
    """A server that still answers `waiting` after the end has not ended the session."""
    this = run(chain(script(), repeat((0.0, WAITING))))

    assert isinstance(this.end, LoginExpired)
    assert [type(request) for _, request in this.requests].count(CancelRequest) == 1
    (at, last) = this.requests[-1]
    assert isinstance(last, CancelRequest)
    assert LIFETIME + GRACE - 15 < at <= LIFETIME + GRACE


def test_a_cancel_at_the_clients_own_timeout_can_be_interrupted() -> None:
    """The interruption is raised, and no second cancel follows."""
    now = 0.0
    steps = login_steps(REQUEST, clock=lambda: now)
    next(steps)
    steps.send(initiated())
    steps.send(None)
    now = LIFETIME + GRACE
    assert isinstance(steps.send(WAITING), CancelRequest)

    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())


@pytest.mark.parametrize(
    "last",
    [
        EXPIRED,
        USED,
        SUCCESS,
        answer(200, {"status": "denied"}),
        answer(400, {"code": "INVALID_POLLING_CODE", "error": "No."}),
        answer(503, retry_after="9999"),
    ],
)
def test_a_login_that_the_server_ended_is_not_cancelled(last: Reply) -> None:
    """Nor is one whose server is unavailable: there is nothing to cancel, or no server to do it."""
    this = run(script(last))

    assert this.requests == [this.requests[0], *this.polls]


def test_steps_that_are_closed_ask_for_nothing() -> None:
    """A caller that closes the generator carries out no further step."""
    for login in (at_the_prompt, at_a_poll, at_a_pause):
        login().close()
    cancelling = at_a_poll()
    cancelling.throw(KeyboardInterrupt())
    cancelling.close()


def test_a_cancel_shows_no_secret() -> None:
    """Neither the request nor the exception shows the polling code or the verifier when printed."""
    steps = at_a_poll()
    cancel = steps.throw(KeyboardInterrupt())
    assert isinstance(cancel, CancelRequest)
    with pytest.raises(KeyboardInterrupt) as raised:
        steps.send(NoResponse("connection reset"))

    shown = repr((cancel, raised.value)) + str(raised.value)
    for secret in json.loads(cancel.body).values():
        assert secret not in shown
