from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from login_relay_client.failures import LoginExpired, ServerUnreachable
from login_relay_client.request import Login, LoginRequest
from login_relay_client.steps import HttpRequest, HttpResponse, Reply
from tests.support.scripted_login import (
    EXPIRED,
    GRACE,
    HELD,
    INTERVAL,
    LIFETIME,
    LOGIN_CODE,
    LOST,
    POLLING_CODE,
    REQUEST,
    SUCCESS,
    TOKEN,
    USED,
    WAITING,
    Timed,
    answer,
    initiated,
    run,
    script,
)

DATE = "Mon, 01 Jan 2001 00:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "120"}, 120),
        ({"retry-after": "0"}, INTERVAL),
        ({"retry-after": "1"}, INTERVAL),
        ({"retry-after": "Mon, 01 Jan 2001 00:00:30 GMT", "date": DATE}, 30),
        ({"retry-after": "Monday, 01-Jan-01 00:00:30 GMT", "date": DATE}, 30),
        ({"retry-after": "Mon Jan  1 00:00:30 2001", "date": DATE}, 30),
        ({"retry-after": "Sun, 31 Dec 2000 23:59:00 GMT", "date": DATE}, INTERVAL),
        ({"retry-after": "Mon, 01 Jan 2001 00:00:30 GMT"}, INTERVAL),
        ({"retry-after": "Mon, 99 Jan 2001 00:00:30 GMT", "date": DATE}, INTERVAL),
        ({"retry-after": "-5"}, INTERVAL),
        ({"retry-after": "7.5"}, INTERVAL),
        ({"retry-after": "\N{ARABIC-INDIC DIGIT SEVEN}"}, INTERVAL),
        ({"retry-after": "soon"}, INTERVAL),
        ({}, INTERVAL),
    ],
)
def test_retry_after_is_honoured_in_every_form(headers: dict[str, str], pause: float) -> None:
    """Whole seconds, or a date minus the answer's own Date; an unreadable value counts as absent."""
    assert run(script(HttpResponse(503, headers, b""), SUCCESS)).pauses == [pause]


def test_a_retry_after_beyond_the_logins_end_ends_it_at_once() -> None:
    """By the end of that pause the login would have expired."""
    for seconds in ("1021", "9" * 5_000):
        this = run(script(answer(503, retry_after=seconds)))
        assert isinstance(this.end, ServerUnreachable)
        assert this.ended == 0
    assert run(script(answer(503, retry_after="1020"), SUCCESS)).end == Login(TOKEN, "s1")


def test_pauses_after_trouble_double_up_to_a_limit_and_begin_anew() -> None:
    """2, 4, 8, 15, 15 seconds; the first good answer resets them."""
    this = run(script(LOST, LOST, LOST, LOST, LOST, WAITING, LOST, SUCCESS))

    assert this.pauses == [2, 4, 8, 15, 15, 2, 2]


def test_jitter_stretches_a_pause_after_trouble_and_nothing_else() -> None:
    """Clients that were disconnected together do not return together, and none returns too soon."""
    this = run(script(answer(429, retry_after="10"), LOST, WAITING, SUCCESS), jitter=1.5)

    assert this.pauses == [15, 6, 2]


def test_a_held_poll_is_followed_by_the_next_at_once() -> None:
    """A poll that lasted longer than the interval has done its waiting."""
    this = run(script(HELD, HELD, SUCCESS, seconds=25))

    assert this.pauses == [0, 0]
    assert all(poll.headers["prefer"] == "wait=25" and poll.timeout == 35 for _, poll in this.polls)


def test_a_poll_let_go_early_is_not_followed_at_once() -> None:
    """After a server releases its held polls, as when it stops, the client waits for the rest of the interval."""
    assert run(script(HELD, SUCCESS, seconds=0.5)).pauses == [1.5]


def test_a_server_that_does_not_hold_polls_is_polled_at_its_interval() -> None:
    """Without Preference-Applied there is a full interval between an answer and the next poll."""
    assert run(script(WAITING, WAITING, SUCCESS, seconds=3)).pauses == [INTERVAL, INTERVAL]


@pytest.mark.parametrize(("told", "pause"), [(7, 7), (0.5, 0.5), (0, 0.1), (-1, 0.1)])
def test_the_interval_is_the_servers(told: float, pause: float) -> None:
    """The client keeps to any interval of the server that is not a busy loop."""
    assert run([(0, initiated(interval=told)), (0, WAITING), (0, SUCCESS)]).pauses == [pause]


def test_what_a_server_does_not_tell_has_a_default() -> None:
    """A server that sends only the three published fields is polled every 2 s for up to 15 minutes."""
    soon = datetime.now(UTC) + timedelta(minutes=5)  # by this machine's clock, which must not count
    body = {"polling_code": POLLING_CODE, "login_code": LOGIN_CODE, "expires_at": soon.isoformat()}
    this = run([(0, answer(200, body)), (0, WAITING), (0, SUCCESS)])

    assert this.pauses == [2]
    assert this.prompt is not None
    assert this.prompt.expires_in == timedelta(minutes=15)
    assert this.end == Login(TOKEN, None)


def test_polls_that_are_cut_ask_to_be_held_for_less() -> None:
    """Behind a proxy that cuts silent connections after 10 s, polls shrink until they pass."""
    waits: list[int] = []

    def relay_behind_proxy(request: HttpRequest) -> Timed:
        if request.path.endswith("/cli"):
            return 0.0, initiated()
        waits.append(int(request.headers["prefer"].removeprefix("wait=")))
        if waits[-1] > 10:
            return 10.0, LOST
        return waits[-1], HELD if len(waits) < 4 else SUCCESS

    assert run(relay_behind_proxy).end == Login(TOKEN, "s1")
    assert waits == [25, 12, 6, 6]


def test_no_poll_is_held_where_none_passes() -> None:
    """In the end the client polls without Prefer."""
    this = run(chain(script(), repeat((5.0, LOST), 5), [(0.0, SUCCESS)]))

    assert this.end == Login(TOKEN, "s1")
    assert [poll.headers.get("prefer") for _, poll in this.polls[-2:]] == ["wait=1", None]


class Relay:
    """A server that follows docs/wire.md 4: a consumed token is repeated to the same Idempotency-Key only."""

    def __init__(self, losses: int) -> None:
        self.key: str | None = None
        self.losses = losses

    def __call__(self, request: HttpRequest) -> Timed:
        """Answer; the first polls' answers are lost after the work was done."""
        if request.path.endswith("/cli"):
            return 0.1, initiated()
        key = request.headers["idempotency-key"]
        self.key = self.key or key
        self.losses -= 1
        return 0.1, LOST if self.losses >= 0 else SUCCESS if key == self.key else USED


@pytest.mark.parametrize("losses", range(5))
def test_a_lost_token_is_recovered_by_the_next_poll(losses: int) -> None:
    """All polls of one login carry the same Idempotency-Key, and five polls fit into the relay's 60 s."""
    this = run(Relay(losses), jitter=1.5)

    assert this.end == Login(TOKEN, "s1")
    assert this.ended < 60


def test_every_login_has_its_own_idempotency_key() -> None:
    """If two logins shared a key, one could receive the other's answer."""
    first, second = (run(script(SUCCESS)).polls[0][1].headers["idempotency-key"] for _ in range(2))

    assert first != second
    assert 20 <= len(first) <= 255
    assert first.isascii()


def test_a_machine_that_slept_polls_once_more_before_it_gives_up() -> None:
    """A pause may last hours; the server, not the clock, decides whether the login is still alive."""
    asleep = run(script(WAITING, SUCCESS), sleep=lambda _: 7_200.0)
    assert asleep.end == Login(TOKEN, "s1")

    too_long = run(script(WAITING, EXPIRED), sleep=lambda _: 7_200.0)
    assert isinstance(too_long.end, LoginExpired)


def test_a_server_that_never_answers_is_given_up_before_there_is_a_code() -> None:
    """A person looks at an empty terminal: after 10 s the client fails, with the reason."""
    this = run(repeat((0.0, LOST)))

    assert isinstance(this.end, ServerUnreachable)
    assert str(this.end) == "The server cannot be reached: connection reset"
    assert 5 < this.ended <= 10


@pytest.mark.parametrize(
    ("request_", "lifetime"), [(REQUEST, LIFETIME), (replace(REQUEST, expires_in=timedelta(minutes=2)), 120)]
)
@pytest.mark.parametrize(("reply", "end"), [(LOST, ServerUnreachable), (WAITING, LoginExpired)])
def test_a_login_outlives_its_end_by_the_pickup_window(
    request_: LoginRequest, lifetime: float, reply: Reply, end: type
) -> None:
    """Without a final answer the client polls until 120 s after the end, then fails with the last answer's error."""
    this = run(chain(script(), repeat((0.0, reply))), request_)

    assert type(this.end) is end
    assert lifetime + GRACE - 15 < this.ended <= lifetime + GRACE


def test_an_outage_may_last_a_day() -> None:
    """Thousands of failures in a row do no harm."""
    this = run(chain(script(), repeat((0.0, LOST))), replace(REQUEST, expires_in=timedelta(days=1)))

    assert isinstance(this.end, ServerUnreachable)
    assert len(this.polls) > 5_000


@pytest.mark.parametrize("date", ["Tue, 02 Jan 2035 00:00:00 GMT", "Mon, 01 Jan 1900 00:00:00 GMT", "today", ""])
def test_a_date_that_makes_no_sense_is_ignored(date: str) -> None:
    """A login lives one second to one day; if the server's two times give another length, 15 minutes."""
    session = initiated()
    prompt = run([(0, replace(session, headers={"date": date})), (0, SUCCESS)]).prompt

    assert prompt is not None
    assert prompt.expires_in == timedelta(minutes=15)


replies = st.one_of(
    st.sampled_from([LOST, WAITING, HELD, answer(429), answer(503, retry_after="3"), answer(500)]),
    st.builds(lambda seconds: answer(503, retry_after=str(seconds)), st.integers(0, 60)),
)


@given(st.lists(st.tuples(st.floats(0, 40), replies), max_size=40), st.floats(1.0, 1.5))
def test_a_poll_never_comes_sooner_than_the_interval(answers: list[Timed], jitter: float) -> None:
    """Through any trouble: an interval between polls, one key and one body for all, and a limit in time."""
    this = run([(0.0, initiated()), *answers, (0.0, SUCCESS)], jitter=jitter)

    starts = [at for at, _ in this.polls]
    assert all(later - earlier >= INTERVAL - 1e-6 for earlier, later in pairwise(starts))
    assert len({poll.headers["idempotency-key"] for _, poll in this.polls}) == 1
    assert len({poll.body for _, poll in this.polls}) == 1
    assert starts[-1] <= LIFETIME + GRACE
    if this.ended <= LIFETIME:
        assert this.end == Login(TOKEN, "s1")
