import asyncio
import ipaddress
import logging
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Protocol

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from login_relay_client import (
    PATIENCE,
    Login,
    LoginError,
    LoginExpired,
    LoginRefused,
    LoginRequest,
    Patience,
    Prompt,
    ServerUnreachable,
    login,
    login_async,
)
from login_relay_client.steps import code_challenge
from tests.support.relay import PROJECT
from tests.support.scripted_relay import (
    CANCELLED,
    KEY,
    LOGIN_CODE,
    POLLING_CODE,
    SUCCESS,
    TOKEN,
    WAITING,
    Behaviour,
    ScriptedRelay,
    answer,
    babble,
    break_off,
    drop,
    hang,
    hanging,
    initiated,
    scripted_relay,
)


class LogIn(Protocol):
    """The signature of both clients."""

    def __call__(
        self, request: LoginRequest, on_prompt: Callable[[Prompt], None], *, patience: Patience = PATIENCE
    ) -> Login:
        """Log in."""


IMPATIENT = Patience(long_poll=0, response=0.2, initiate=0.5, grace=0.0, cancel=0.2)
"""Gives up after tenths of a second instead of tens of seconds."""


def ignore(_: Prompt) -> None:
    """Show nothing."""


def login_in_a_loop(
    request: LoginRequest, on_prompt: Callable[[Prompt], None], *, patience: Patience = PATIENCE
) -> Login:
    """Run `login_async` from synchronous code."""
    return asyncio.run(login_async(request, on_prompt, patience=patience))


@pytest.fixture(params=[login, login_in_a_loop], ids=["sync", "async"])
def log_in(request: pytest.FixtureRequest) -> LogIn:
    """Return each of the two clients in turn."""
    client: LogIn = request.param
    return client


@pytest.fixture
def relay() -> Iterator[ScriptedRelay]:
    """Return a server that answers as the test scripts it."""
    with scripted_relay() as relay:
        yield relay


def request_to(relay: ScriptedRelay) -> LoginRequest:
    """Return a login at this server."""
    return LoginRequest(server=relay.url, project_id=PROJECT, publishable_client_key=KEY)


@pytest.mark.parametrize(
    "trouble",
    [drop, break_off, babble, answer(503, "Busy", retry_after="0"), answer(500, "")],
    ids=["dropped", "broken off", "not HTTP", "busy", "failed"],
)
def test_trouble_on_the_way_loses_no_login(relay: ScriptedRelay, log_in: LogIn, trouble: Behaviour) -> None:
    """Any request may fail on the wire after it was read: the next one is answered and the login succeeds."""
    relay.script += [trouble, initiated(), trouble, WAITING, trouble, SUCCESS]

    assert log_in(request_to(relay), ignore) == Login(TOKEN, "s1")
    assert relay.script == []
    assert {poll.body["polling_code"] for poll in relay.polls} == {POLLING_CODE}


def test_a_lost_token_is_asked_for_with_the_same_key(relay: ScriptedRelay, log_in: LogIn) -> None:
    """The relay repeats a token whose answer was lost to a poll that carries the same key."""
    relay.script += [initiated(), WAITING, break_off, SUCCESS]
    log_in(request_to(relay), ignore)

    keys = [poll.headers["idempotency-key"] for poll in relay.polls]
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_a_server_that_hangs_is_asked_again(relay: ScriptedRelay, log_in: LogIn) -> None:
    """A request without an answer ends at its time-out."""
    relay.script += [initiated(), hang, SUCCESS]

    assert log_in(request_to(relay), ignore, patience=IMPATIENT) == Login(TOKEN, "s1")


def unknown(field: str) -> Behaviour:
    """Reject a field, as servers do that do not know it."""
    return answer(400, {"code": "SCHEMA_ERROR", "error": f"body contains unknown properties: {field}"})


def test_a_server_that_refuses_to_bind_is_not_logged_in_to(relay: ScriptedRelay, log_in: LogIn) -> None:
    """The login fails before there is a code, and the error says how to log in unbound."""
    prompts: list[Prompt] = []
    relay.script += [unknown("code_challenge"), initiated(), WAITING, SUCCESS]
    with pytest.raises(LoginRefused, match=r"unknown properties: code_challenge .* allow_unbound=True") as caught:
        log_in(request_to(relay), prompts.append)

    assert caught.value.code == "SCHEMA_ERROR"
    assert len(relay.received) == 1
    assert prompts == []


def test_a_server_that_refuses_to_bind_is_asked_without_if_that_is_allowed(relay: ScriptedRelay, log_in: LogIn) -> None:
    """It gets the fields that every server of the interface knows, and no verifier in polls."""
    relay.script += [unknown("code_challenge"), initiated(), WAITING, SUCCESS]

    assert log_in(replace(request_to(relay), allow_unbound=True), ignore) == Login(TOKEN, "s1")
    refused, unbound, *polls = [request.body for request in relay.received]
    assert "code_challenge" in refused
    assert unbound == {}
    assert polls == [{"polling_code": POLLING_CODE}] * 2


def test_a_server_that_ignores_the_binding_is_logged_in_to(relay: ScriptedRelay, log_in: LogIn) -> None:
    """It receives the challenge and the verifier, and does nothing with them."""
    relay.script += [initiated(), WAITING, SUCCESS]

    assert log_in(request_to(relay), ignore) == Login(TOKEN, "s1")
    initiate, *polls = [request.body for request in relay.received]
    proofs = {str(poll["code_verifier"]) for poll in polls}
    assert [initiate["code_challenge"]] == [code_challenge(proof) for proof in proofs]


def test_retry_after_is_honoured(relay: ScriptedRelay, log_in: LogIn) -> None:
    """After 429 with a Retry-After of one second there is no poll for a second, at an interval of a tenth."""
    relay.script += [initiated(), answer(429, "Too many", retry_after="1"), SUCCESS]
    log_in(request_to(relay), ignore)

    first, second = (poll.at for poll in relay.polls)
    assert 1.0 <= second - first < 3.0


def test_a_server_that_is_not_there_is_unreachable(log_in: LogIn) -> None:
    """Nothing listens: the client gives up and gives the reason."""
    with scripted_relay() as relay:
        request = request_to(relay)

    with pytest.raises(ServerUnreachable, match="cannot be reached"):
        log_in(request, ignore, patience=IMPATIENT)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Return a certificate for 127.0.0.1, signed only by its own key; PEM, with the key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(host, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    pem.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
    )
    return pem


def test_a_server_must_prove_who_it_is(log_in: LogIn, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown certificate gets no request; with SSL_CERT_FILE it is known, and the login succeeds."""
    with scripted_relay(certificate) as relay:
        relay.script += [initiated(), SUCCESS]
        with pytest.raises(ServerUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
            log_in(request_to(relay), ignore, patience=IMPATIENT)
        assert relay.received == []

        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert log_in(request_to(relay), ignore, patience=IMPATIENT) == Login(TOKEN, "s1")


def test_a_redirect_is_not_followed(relay: ScriptedRelay, log_in: LogIn) -> None:
    """The polling code goes only to the server that it came from."""
    with scripted_relay() as elsewhere:
        elsewhere.script += [SUCCESS]
        moved = answer(307, "Moved", location=f"{elsewhere.url}/api/v1/auth/cli/poll")
        relay.script += [initiated(), moved]
        with pytest.raises(LoginRefused, match="Moved"):
            log_in(request_to(relay), ignore)
        assert elsewhere.received == []


def test_no_proxy_reads_what_goes_to_this_machine(
    relay: ScriptedRelay, log_in: LogIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy named in the environment is for other machines only."""
    with scripted_relay() as proxy:
        for variable in ("http_proxy", "all_proxy"):
            monkeypatch.setenv(variable, proxy.url)
        relay.script += [initiated(), SUCCESS]
        assert log_in(request_to(relay), ignore) == Login(TOKEN, "s1")
        assert proxy.received == []


def test_a_relay_may_be_mounted_below_a_path(relay: ScriptedRelay, log_in: LogIn) -> None:
    """The server's path comes before the API's."""
    relay.script += [initiated(), SUCCESS]
    log_in(replace(request_to(relay), server=f"{relay.url}/login/"), ignore)

    assert [request.path for request in relay.received] == [
        "/login/api/v1/auth/cli",
        "/login/api/v1/auth/cli/poll",
    ]


@pytest.mark.parametrize("last", [answer(400, {"code": "INVALID_POLLING_CODE", "error": "No."}), None])
def test_no_secret_reaches_a_log_or_a_traceback(
    relay: ScriptedRelay, log_in: LogIn, last: Behaviour | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even at debug level; and an error has no other exception in its chain that holds the request."""
    caplog.set_level(logging.DEBUG)
    relay.script += [initiated(), WAITING, drop, last] if last else [initiated(), WAITING, *[drop] * 50]
    request = replace(request_to(relay), expires_in=timedelta(seconds=1))
    with pytest.raises(LoginError) as caught:
        log_in(request, ignore, patience=IMPATIENT)

    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    shown = caplog.text + "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert "auth/cli/poll" in shown
    for secret in (TOKEN, POLLING_CODE, LOGIN_CODE):
        assert secret not in shown


def interrupt(_: BaseHTTPRequestHandler) -> None:
    """Press Ctrl-C: the signal goes to the main thread, which the client under test blocks."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)


def held_until_interrupted(handler: BaseHTTPRequestHandler) -> None:
    """Press Ctrl-C while the poll is held."""
    interrupt(handler)
    hang(handler)


def answered_and_interrupted(handler: BaseHTTPRequestHandler) -> None:
    """Press Ctrl-C in the pause after a poll."""
    answer(200, {"status": "waiting"})(handler)
    time.sleep(0.1)
    interrupt(handler)


@pytest.mark.parametrize("poll", [held_until_interrupted, answered_and_interrupted])
def test_ctrl_c_cancels_a_login(relay: ScriptedRelay, log_in: LogIn, poll: Behaviour) -> None:
    """KeyboardInterrupt is raised after one cancel, which carries what the poll did; the connections are closed."""
    relay.script += [initiated(interval=30), poll, CANCELLED]
    with pytest.raises(KeyboardInterrupt):
        log_in(request_to(relay), ignore)

    assert relay.hung_up.wait(5)
    _, polled, cancel = relay.received
    assert cancel.path == "/api/v1/auth/cli/cancel"
    assert cancel.body == polled.body
    assert cancel.body.keys() == {"polling_code", "code_verifier"}
    assert cancel.headers.items() >= {"x-stack-access-type": "client", "x-stack-project-id": PROJECT}.items()
    assert cancel.headers["x-stack-publishable-client-key"] == KEY


def test_an_error_of_the_callers_own_cancels_a_login(relay: ScriptedRelay, log_in: LogIn) -> None:
    """What `on_prompt` raises is raised after one cancel: the tool does not wait for the login any more."""

    def fail(_: Prompt) -> None:
        raise OSError("no terminal")

    relay.script += [initiated(), CANCELLED]
    with pytest.raises(OSError, match="no terminal"):
        log_in(request_to(relay), fail)
    assert [request.path for request in relay.received] == ["/api/v1/auth/cli", "/api/v1/auth/cli/cancel"]


@pytest.mark.parametrize(
    "response",
    [answer(404, "Not Found"), answer(400, {"code": "INVALID_POLLING_CODE", "error": "No."}), answer(503, ""), drop],
    ids=["unknown", "refused", "busy", "dropped"],
)
def test_a_cancel_that_fails_changes_nothing(relay: ScriptedRelay, log_in: LogIn, response: Behaviour) -> None:
    """It is not sent again, and the interruption is raised: servers of the interface do not know it."""
    relay.script += [initiated(), held_until_interrupted, response]
    with pytest.raises(KeyboardInterrupt):
        log_in(request_to(relay), ignore)
    assert len(relay.received) == 3
    assert len(relay.cancels) == 1


def trickle(handler: BaseHTTPRequestHandler) -> None:
    """Send a header for ten seconds, a byte at a time, so that no read times out."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
    for _ in range(100):
        handler.wfile.write(b"x")
        time.sleep(0.1)


@pytest.mark.parametrize("response", [hang, trickle])
def test_a_cancel_ends_by_its_timeout(relay: ScriptedRelay, log_in: LogIn, response: Behaviour) -> None:
    """However the server answers; the limit is for the whole request."""
    relay.script += [initiated(), held_until_interrupted, response]
    with pytest.raises(KeyboardInterrupt):
        log_in(request_to(relay), ignore, patience=replace(PATIENCE, cancel=0.3))

    (cancel,) = relay.cancels
    assert 0.2 < time.monotonic() - cancel.at < 5


def test_the_clients_own_timeout_cancels_a_login(relay: ScriptedRelay, log_in: LogIn) -> None:
    """A server that still says `waiting` after the end gets one cancel."""
    relay.script += [initiated(), *[WAITING] * 50]
    with pytest.raises(LoginExpired):
        log_in(replace(request_to(relay), expires_in=timedelta(seconds=1)), ignore, patience=IMPATIENT)

    assert relay.received[-1:] == relay.cancels
    assert relay.cancels[0].body == relay.polls[0].body


def test_no_secret_of_a_cancel_reaches_a_log_or_a_traceback(
    relay: ScriptedRelay, log_in: LogIn, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even at debug level, and whether or not it is answered."""
    caplog.set_level(logging.DEBUG)
    relay.script += [initiated(), held_until_interrupted, CANCELLED, initiated(), held_until_interrupted, drop]
    shown = ""
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt) as caught:
            log_in(request_to(relay), ignore)
        shown += "".join(traceback.format_exception(caught.value))

    shown += caplog.text
    assert "auth/cli/cancel" in shown
    for secret in (LOGIN_CODE, *(str(value) for cancel in relay.cancels for value in cancel.body.values())):
        assert secret not in shown


async def test_a_cancelled_task_cancels_a_login(relay: ScriptedRelay) -> None:
    """While the server holds a poll: CancelledError is raised after one cancel, and the connections are closed."""
    held = threading.Event()
    relay.script += [initiated(), hanging(held), CANCELLED]
    task = asyncio.create_task(login_async(request_to(relay), ignore))
    await asyncio.to_thread(held.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(relay.hung_up.wait, 5)
    assert [cancel.body for cancel in relay.cancels] == [relay.polls[0].body]


async def test_a_callers_timeout_cancels_a_login(relay: ScriptedRelay) -> None:
    """`asyncio.timeout` around the login still ends as TimeoutError."""
    relay.script += [initiated(), hang, CANCELLED]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await login_async(request_to(relay), ignore)
    assert len(relay.cancels) == 1


async def test_a_task_that_is_cancelled_twice_ends_at_once(relay: ScriptedRelay) -> None:
    """The second time while the cancel waits for its response."""
    held, cancelling = threading.Event(), threading.Event()
    relay.script += [initiated(), hanging(held), hanging(cancelling)]
    task = asyncio.create_task(login_async(request_to(relay), ignore, patience=replace(PATIENCE, cancel=60)))
    for event in (held, cancelling):
        await asyncio.to_thread(event.wait, 5)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert len(relay.cancels) == 1
