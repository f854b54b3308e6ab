import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import chain, repeat

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from login_relay_client.failures import (
    LoginDenied,
    LoginExpired,
    LoginRefused,
    LoginUsed,
)
from login_relay_client.request import Login
from login_relay_client.steps import (
    HttpResponse,
    NoResponse,
    Reply,
    code_challenge,
)
from tests.support.scripted_login import (
    EXPIRED,
    INTERVAL,
    KEY,
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


def test_a_login_sends_what_the_wire_asks_for() -> None:
    """Initiate sends the tool's facts and a challenge; a poll sends code and verifier; both send project and key."""
    request = replace(
        REQUEST,
        expires_in=timedelta(minutes=10),
        client_name="tool",
        client_version="1.2",
        hostname="laptop",
    )
    this = run(script(SUCCESS), request)

    (_, initiate), (_, poll) = this.requests
    assert initiate.path == "/api/v1/auth/cli"
    proof = json.loads(poll.body)["code_verifier"]
    assert re.fullmatch("[A-Za-z0-9_-]{43}", proof)
    assert json.loads(initiate.body) == {
        "code_challenge": code_challenge(proof),
        "expires_in_millis": 600_000,
        "client_name": "tool",
        "client_version": "1.2",
        "hostname": "laptop",
    }
    assert poll.path == "/api/v1/auth/cli/poll"
    assert json.loads(poll.body) == {"polling_code": POLLING_CODE, "code_verifier": proof}
    for sent in (initiate, poll):
        assert sent.headers["content-type"] == "application/json"
        assert sent.headers["x-stack-project-id"] == "p"
        assert sent.headers["x-stack-access-type"] == "client"
        assert sent.headers["x-stack-publishable-client-key"] == KEY
    assert this.end == Login(TOKEN, "s1")


def test_a_challenge_is_that_of_the_specification() -> None:
    """The example of RFC 7636, Appendix B."""
    challenge = code_challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")

    assert challenge == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_what_is_not_given_is_not_sent() -> None:
    """An initiate without facts has only the challenge: servers reject fields that are null."""
    assert json.loads(run(script(SUCCESS)).requests[0][1].body).keys() == {"code_challenge"}


def test_no_two_logins_have_the_same_verifier() -> None:
    """Each login draws its own, and sends it in all its polls."""
    proofs = [
        {json.loads(poll.body)["code_verifier"] for _, poll in run(script(WAITING, SUCCESS)).polls} for _ in range(20)
    ]
    assert {len(proof) for proof in proofs} == {1}
    assert len(set.union(*proofs)) == 20


SCHEMA_ERROR = answer(400, {"code": "SCHEMA_ERROR", "error": "body contains unknown properties"})


@pytest.mark.parametrize("text", ["body contains unknown properties", ""])
def test_a_server_that_refuses_to_bind_ends_the_login(text: str) -> None:
    """Nothing is sent without the challenge, and the error gives the server's words and what to do."""
    this = run([(0.0, answer(400, {"code": "SCHEMA_ERROR", "error": text})), (0.0, initiated()), (0.0, SUCCESS)])

    assert isinstance(this.end, LoginRefused)
    assert (this.end.status, this.end.code) == (400, "SCHEMA_ERROR")
    assert this.end.message.startswith(f"{text} (The server may not support code_challenge".lstrip())
    assert "allow_unbound=True" in str(this.end)
    assert len(this.requests) == 1


def test_a_server_that_refuses_to_bind_is_asked_without_if_the_caller_allows_it() -> None:
    """At once, with only the published fields; later polls omit the verifier, which the server would reject too."""
    request = replace(REQUEST, expires_in=timedelta(minutes=10), client_name="tool", allow_unbound=True)
    this = run([(0.0, SCHEMA_ERROR), (0.0, initiated()), (0.0, WAITING), (0.0, SUCCESS)], request)

    bodies = [json.loads(sent.body) for _, sent in this.requests]
    assert bodies[0].keys() == {"expires_in_millis", "code_challenge", "client_name"}
    assert bodies[1:] == [{"expires_in_millis": 600_000}, *[{"polling_code": POLLING_CODE}] * 2]
    assert this.end == Login(TOKEN, "s1")
    assert this.pauses == [INTERVAL]


@pytest.mark.parametrize(
    "refusals",
    [
        [SCHEMA_ERROR, SCHEMA_ERROR],
        [answer(400, {"code": "BODY_PARSING_ERROR", "error": "body contains unknown properties"})],
        [answer(401, {"code": "INVALID_PUBLISHABLE_CLIENT_KEY", "error": "No."})],
    ],
)
def test_no_other_refusal_unbinds_a_login(refusals: list[Reply]) -> None:
    """Even if unbound logins are allowed: a second refusal is final, and so is one for another reason."""
    this = run([(0.0, refusal) for refusal in refusals], replace(REQUEST, allow_unbound=True))

    assert isinstance(this.end, LoginRefused)
    assert len(this.requests) == len(refusals)


def test_trouble_unbinds_no_login() -> None:
    """Even if unbound logins are allowed: after a failure, initiate is sent again with the same challenge."""
    answers: list[Timed] = [(0.0, LOST), (0.0, answer(503)), (0.0, answer(429)), (0.0, initiated()), (0.0, SUCCESS)]
    this = run(answers, replace(REQUEST, allow_unbound=True))

    assert len({sent.body for _, sent in this.requests[:4]}) == 1
    assert "code_verifier" in json.loads(this.polls[0][1].body)


def test_the_prompt_has_the_link_and_the_lifetime_by_the_servers_clock() -> None:
    """The login lives from the answer's Date to `expires_at`, whatever this machine's clock shows."""
    request = replace(REQUEST, confirm_url="https://app.example/cli?code={login_code}&x={y}")
    prompt = run(script(SUCCESS), request).prompt

    assert prompt is not None
    assert prompt.link == "https://app.example/cli?code=WDJB-MJHT-XKQP&x={y}"
    assert prompt.login_code == LOGIN_CODE
    assert prompt.expires_in == timedelta(seconds=LIFETIME)
    assert prompt.interval == INTERVAL
    assert prompt.session_id == "s1"


def test_a_code_cannot_steer_the_terminal_or_leave_its_place_in_the_link() -> None:
    """Control characters of a code are dropped and the rest is quoted."""
    request = replace(REQUEST, confirm_url="https://app.example/{login_code}")
    prompt = run([(0, initiated(login_code="A\x1b]0;B\x07/../?\nC")), (0, SUCCESS)], request).prompt

    assert prompt is not None
    assert prompt.login_code == "A]0;B/../? C"
    assert prompt.link == "https://app.example/A%5D0%3BB%2F..%2F%3F%20C"


@pytest.mark.parametrize(
    ("reply", "end", "text"),
    [
        (SUCCESS, Login, ""),
        (answer(200, {"status": "success", "refresh_token": TOKEN}), Login, ""),
        (USED, LoginUsed, "picked up"),
        (EXPIRED, LoginExpired, "Nobody approved"),
        (answer(200, {"status": "denied"}), LoginDenied, "was denied"),
        (answer(200, {"status": "suspended"}), LoginRefused, "'suspended'"),
        (answer(201, {"status": "success"}), LoginRefused, "'success'"),
        (answer(400, {"code": "INVALID_POLLING_CODE", "error": "No."}), LoginRefused, "No."),
        (answer(401, {"code": "A\x1bB", "error": "\x1b]2;No\x07"}), LoginRefused, "]2;No"),
        (HttpResponse(400, {"content-type": "text/plain"}, b"Not\n\x1b[31m so"), LoginRefused, "Not [31m so"),
        (HttpResponse(404, {"content-type": "text/html"}, b"<html>"), LoginRefused, "HTTP status 404"),
        (HttpResponse(302, {"location": "https://elsewhere"}, b""), LoginRefused, "HTTP status 302"),
    ],
)
def test_a_final_answer_ends_the_login_at_once(reply: Reply, end: type, text: str) -> None:
    """Each final answer has its own end, and the server's text reaches the person on one harmless line."""
    this = run(script(reply))

    assert type(this.end) is end
    assert text in str(this.end)
    assert isinstance(this.end, Login) or str(this.end).isprintable()
    assert this.pauses == []


@pytest.mark.parametrize("status", [*range(202, 429), *range(430, 500)])
def test_every_other_status_below_500_is_final(status: int) -> None:
    """Neither initiate nor poll tries again after it; the error carries status and code."""
    refusal = answer(status, {"code": "SOME_CODE", "error": "Because."})
    for answers in ([(0.0, refusal)], script(refusal)):
        end = run(answers).end
        assert isinstance(end, LoginRefused)
        assert (end.status, end.code, end.message) == (status, "SOME_CODE", "Because.")


TROUBLE = [
    LOST,
    *(answer(status) for status in (429, *range(500, 600))),
    HttpResponse(200, {}, b"<html>Welcome to the hotel</html>"),
    HttpResponse(200, {}, b"\xff"),
    HttpResponse(200, {}, b'{"status":"w","x":' + b"[" * 100_000),
    answer(200, {"status": 1}),
    answer(200, []),
]


@pytest.mark.parametrize("reply", TROUBLE)
def test_trouble_is_waited_out(reply: Reply) -> None:
    """Initiate and poll go on after it as if it had not happened."""
    this = run([(0.0, reply), (0.0, initiated()), (0.0, reply), (0.0, reply), (0.0, SUCCESS)])

    assert this.end == Login(TOKEN, "s1")
    assert this.pauses == [1.0, INTERVAL, 2 * INTERVAL]


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
session_bodies = st.fixed_dictionaries(
    {"polling_code": st.text(), "login_code": st.text()},
    optional={
        "expires_at": st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat) | st.text(),
        "interval": st.floats(allow_nan=False, allow_infinity=False) | json_values,
        "session_id": json_values,
    },
)
poll_bodies = st.fixed_dictionaries(
    {"status": st.sampled_from(["waiting", "success", "used", "denied", "expired"]) | st.text()},
    optional={"refresh_token": json_values},
)
error_bodies = st.fixed_dictionaries({"code": st.text(), "error": st.text()})
anything = st.builds(
    HttpResponse,
    st.sampled_from([200, 201, 400, 401, 429, 500, 503]) | st.integers(100, 999),
    st.dictionaries(
        st.sampled_from(["retry-after", "date", "content-type", "preference-applied"]),
        st.text() | st.datetimes().map(format_datetime) | st.integers().map(str) | st.just("text/plain"),
    ),
    st.binary() | (session_bodies | poll_bodies | error_bodies | json_values).map(json.dumps).map(str.encode),
)


@given(st.lists(st.tuples(st.floats(0, 40), anything | st.builds(NoResponse, st.text())), max_size=10))
@example([(0.0, initiated(expires_at="0001-01-01T00:00:00+14:00")), (0.0, EXPIRED)])
@example([(0.0, initiated(expires_at="9999-12-31T23:59:59-14:00")), (0.0, EXPIRED)])
def test_no_answer_breaks_the_client(answers: list[Timed]) -> None:
    """Whatever the server answers, a login ends as a Login or a LoginError with printable text."""
    this = run([*answers, *repeat((0.0, EXPIRED), 2_000)])

    assert this.end is not None
    assert str(this.end).isprintable() or isinstance(this.end, Login)
    assert len(str(this.end)) < 700 or isinstance(this.end, Login)


@given(st.lists(st.sampled_from([LOST, WAITING, answer(503), USED, EXPIRED, answer(400), SUCCESS]), min_size=1))
def test_no_secret_is_shown_by_what_a_tool_may_log(answers: list[Reply]) -> None:
    """Steps, replies, requests and errors show no token, code or key when they are printed."""
    this = run(chain(script(*answers), repeat((0.0, EXPIRED))))
    shown = repr((REQUEST, this.requests, answers, this.prompt, this.end)) + str(this.end)

    _, poll = this.polls[0]
    drawn = (poll.headers["idempotency-key"], json.loads(poll.body)["code_verifier"])
    for secret in (TOKEN, POLLING_CODE, LOGIN_CODE, KEY, *drawn):
        assert secret not in shown
