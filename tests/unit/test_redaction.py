"""Text that looks like one of our secrets is masked in every log line, wherever it came from."""

import io
import json
import logging
import time
from collections.abc import Iterator

import msgspec
import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from api.request.note import Note
from api.stack.complete import CompleteRequest
from runtime.codes import (
    display_login_code,
    mint_refresh_token,
    new_login_code,
    new_polling_code,
)
from runtime.logs import configure_logging
from runtime.redaction import MASK, redact
from runtime.settings import Settings

SESSION_ID = "0084b16ba1cbbb1e5a92d2ff3d"  # fixed: it names a test, and names are the same in every process
CODE = new_login_code()
JWT = "eyJhbGciOiJFZERTQSIsImtpZCI6ImEifQ.eyJwcm9qZWN0X2lkcyI6W119.c2lnbmF0dXJl"
SECRETS = {
    "polling code": new_polling_code(SESSION_ID).text,
    "minted token": mint_refresh_token(SESSION_ID).text,
    "publishable key": "pck_3MI2sOZ-o1Yb_T0kL6bJ2uYvH1q5rN8wZ7xE4dC9aBg",
    "server key": "ssk_3MI2sOZ-o1Yb_T0kL6bJ2uYvH1q5rN8wZ7xE4dC9aBg",
    "admin key": "sak_3MI2sOZ-o1Yb_T0kL6bJ2uYvH1q5rN8wZ7xE4dC9aBg",
    "login code": CODE,
    "login code as shown": display_login_code(CODE),
    "login code with spaces": display_login_code(CODE).replace("-", " "),
    "login code in small letters": display_login_code(CODE).lower(),
    "JWT": JWT,
}
every_secret = pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())


@pytest.fixture(params=["json", "console"])
def lines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Return what a process that logs at DEBUG writes to standard error."""
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    root, factory = logging.getLogger(), logging.getLogRecordFactory()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    configure_logging(Settings(log_level="debug", log_format=request.param))
    yield written
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.setLogRecordFactory(factory)
    structlog.reset_defaults()


@every_secret
@pytest.mark.parametrize("around", ["{}", "polling {} failed", "https://a/b?c%3D{}&d", "['{}']", "bcdfgh{}"])
def test_a_secret_is_masked_wherever_it_stands_in_a_text(secret: str, around: str) -> None:
    """In a sentence, a URL, a list, right after letters."""
    masked = redact(around.format(secret))
    assert secret[-4:] not in masked
    assert MASK in masked


@every_secret
def test_what_stands_around_a_secret_stays(secret: str) -> None:
    """A reader of the log still learns what happened to which session."""
    masked = redact(f"polling {secret} of {SESSION_ID} failed")
    assert masked.startswith("polling ")
    assert masked.endswith(f"{MASK} of {SESSION_ID} failed")


@every_secret
def test_a_secret_is_masked_in_every_part_of_a_structlog_line(secret: str, lines: io.StringIO) -> None:
    """The event, a value, a nested value, the repr of an object, bytes, an exception with its cause."""
    log = structlog.get_logger("test")
    try:
        try:
            fail(secret)
        except ValueError as error:
            raise KeyError(secret) from error
    except KeyError:
        log.exception(secret, plain=secret, deep={"a": [{"b": secret}]}, body=secret.encode(), error=Holder(secret))
    assert "ValueError" in lines.getvalue()
    assert secret not in lines.getvalue()


@every_secret
def test_a_secret_is_masked_in_every_part_of_a_standard_line(secret: str, lines: io.StringIO) -> None:
    """The message, its arguments, an exception: of any library, with a handler of its own too."""
    library, own = logging.getLogger("a.library"), io.StringIO()
    handler = logging.StreamHandler(own)
    library.addHandler(handler)
    try:
        fail(secret)
    except ValueError:
        library.exception(secret + " %s %r", secret, {"a": secret})
    finally:
        library.removeHandler(handler)
    for written in (lines.getvalue(), own.getvalue()):
        assert "ValueError" in written
        assert secret not in written


@every_secret
def test_a_request_id_that_looks_like_a_secret_is_not_taken(secret: str) -> None:
    """Request ids are logged and returned as they come; a tool that sends a code as one gets an id of ours."""
    assert Note("build-7/42").request_id == "build-7/42"
    assert secret not in Note(secret).request_id


@pytest.mark.parametrize(
    "name",
    [
        "refresh_token",
        "polling_code",
        "login_code",
        "device_code",
        "client_secret",
        "x-stack-secret-server-key",
        "password",
        "code_verifier",
        "api_key",
    ],
)
def test_a_value_is_masked_because_of_its_name(name: str, lines: io.StringIO) -> None:
    """A refresh token of another issuer has no known shape; the name of its field gives it away."""
    structlog.get_logger("test").warning("refused", **{name: "correct horse"}, nested=[{name: b"battery staple"}])
    assert MASK in lines.getvalue()
    assert "horse" not in lines.getvalue()
    assert "battery" not in lines.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        repr(CompleteRequest("WDJB", refresh_token="correct horse")),
        json.dumps({"refresh_token": "correct horse"}),
        json.dumps(json.dumps({"refresh_token": "correct horse"})),
        repr({"refresh_token": b"correct horse"}),
        "a=b&refresh_token=horse&c=d",
        "grant_type=x&device_code=horse&client_secret=horse",
        "rediss://relay:correct-horse@redis.example.com:6379/0",
    ],
)
def test_a_named_value_is_masked_inside_a_text(text: str) -> None:
    """As the repr of a Struct, JSON, JSON in JSON, a form, the password of a URL."""
    assert "horse" not in redact(text)
    assert MASK in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "worker started",
        "entry left pending: conflict",
        f"session {SESSION_ID} 1714000000000-0",
        "3f0d7c1e-59a4-4a53-9a8e-2f1f5a0c9f10",
        "INVALID_LOGIN_CODE",
        "redis://127.0.0.1:6379/0",
        "/api/v1/auth/cli/complete",
    ],
)
def test_what_is_no_secret_stays_readable(text: str) -> None:
    """Session ids, entry ids, project ids and error codes are what operators search for."""
    assert redact(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "eyJ",
        "token ",
        'token="',
        "://a:",
        "BCDF-",
        "lrp_",
        "token='\\",
        "client_",
        '"secret":',
        "a.b",
        "polling-",
        '"k":',
        '"k"',
    ],
)
def test_no_text_takes_long(text: str) -> None:
    """Up to 64 KiB of a stranger's text may be logged; a process that searches it answers nobody meanwhile."""
    started = time.process_time()
    redact((text * 65_536)[:65_536])
    redact(text + "a" * 65_536)
    redact(text + " " * 65_536)
    assert time.process_time() - started < 1.0  # hundredths of it


def test_numbers_stay_numbers(lines: io.StringIO) -> None:
    """Counts under the name of a secret are not secrets, and JSON stays JSON."""
    structlog.get_logger("test").info("read", token_count=3, late=True, none=None)
    assert "3" in lines.getvalue()
    if lines.getvalue().startswith("{"):
        assert json.loads(lines.getvalue())["token_count"] == 3


BEGINNINGS = [
    "lrp_",
    "eyJ",
    ".",
    "token",
    "=",
    '"',
    "'",
    "\\",
    "://",
    ":",
    "@",
    "secret",
    " ",
    "-",
    "_",
    "B",
    "BCDF",
    "a",
    "\n",
]
"""Characters and prefixes that the patterns look for."""

surroundings = st.text() | st.lists(st.sampled_from(BEGINNINGS)).map("".join)


@given(surroundings, surroundings, st.sampled_from(sorted(SECRETS.values())))
@example("lrp_", "", SECRETS["login code with spaces"])
@example("lrp_", "", SECRETS["JWT"])
@example("BBBBBBBB", "", SECRETS["login code as shown"])
def test_no_surroundings_hide_a_secret(before: str, after: str, secret: str) -> None:
    """With any text before and after it."""
    assert secret[-8:] not in redact(before + secret + after)


def fail(text: str) -> None:
    """Raise an exception whose text shows a secret."""
    raise ValueError(text)


class Holder(msgspec.Struct):
    """An object whose repr shows a secret."""

    value: str
