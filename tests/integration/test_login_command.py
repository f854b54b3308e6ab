import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from login_relay.login import EXIT_CODES, login
from tests.support.relay import PROJECT
from tests.support.scripted_relay import (
    CANCELLED,
    DENIED,
    EXPIRED,
    KEY,
    LOGIN_CODE,
    SUCCESS,
    TOKEN,
    USED,
    Behaviour,
    ScriptedRelay,
    answer,
    hang,
    hanging,
    initiated,
    scripted_relay,
)


@pytest.fixture
def relay() -> Iterator[ScriptedRelay]:
    """Return a server that answers as the test scripts it."""
    with scripted_relay() as relay:
        yield relay


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home folder of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def arguments(relay: ScriptedRelay) -> list[str]:
    """Return the arguments that every login needs."""
    return ["--server", relay.url, "--project", PROJECT, "--key", KEY]


def run(relay: ScriptedRelay, *options: str) -> Result:
    """Run `login-relay login` in this process."""
    return CliRunner().invoke(login, [*arguments(relay), *options])


def mode(path: Path) -> int:
    """Return the permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def test_the_token_goes_to_a_private_file_and_nowhere_else(relay: ScriptedRelay, home: Path) -> None:
    """By default the file is in the user's configuration folder; the output names it and shows no token."""
    relay.script += [initiated(), SUCCESS]
    result = run(relay)

    (path,) = home.rglob(f"{PROJECT}.token")
    assert result.exit_code == 0
    assert path.read_text() == TOKEN
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert str(path) in result.stderr
    assert result.stdout == ""
    assert TOKEN not in result.output


def test_the_code_and_the_link_are_shown_on_standard_error(relay: ScriptedRelay) -> None:
    """Standard output is for programs."""
    relay.script += [initiated(), SUCCESS]
    result = run(relay, "--print-token", "--link", "https://app.example/?c={login_code}", "--no-open")

    assert f"https://app.example/?c={LOGIN_CODE}\n" in result.stderr
    assert f"code  {LOGIN_CODE}\n" in result.stderr
    assert result.stdout == f"{TOKEN}\n"


def test_a_printed_token_is_not_also_written(relay: ScriptedRelay, home: Path) -> None:
    """--print-token alone leaves no file behind."""
    relay.script += [initiated(), SUCCESS]
    run(relay, "--print-token")

    assert list(home.rglob("*")) == []


def test_an_old_token_file_is_replaced_by_a_private_one(relay: ScriptedRelay, home: Path) -> None:
    """Looser permissions are not kept, and a process that has the old file open does not see the new token."""
    path = home / "here" / "token"
    path.parent.mkdir()
    path.write_text("old")
    path.chmod(0o666)
    relay.script += [initiated(), SUCCESS]
    with path.open() as opened_before:
        result = run(relay, "--token-file", str(path))
        assert opened_before.read() == "old"

    assert result.exit_code == 0
    assert path.read_text() == TOKEN
    assert mode(path) == 0o600
    assert list(path.parent.iterdir()) == [path]


FAILURES: dict[str, tuple[list[Behaviour], int]] = {
    "expired": ([initiated(), EXPIRED], 3),
    "used": ([initiated(), USED], 4),
    "refused": ([answer(401, {"code": "INVALID_PUBLISHABLE_CLIENT_KEY", "error": "Wrong key."})], 5),
    "unreachable": ([initiated(), answer(503, "Busy", retry_after="9999")], 6),
    "denied": ([initiated(), DENIED], 7),
}


@pytest.mark.parametrize("status", FAILURES)
def test_every_failure_has_its_exit_code(relay: ScriptedRelay, home: Path, status: str) -> None:
    """The old token file stays as it was, and --json names the failure."""
    path = home / "token"
    path.write_text("old")
    script, exit_code = FAILURES[status]
    relay.script += script
    result = run(relay, "--json", "--token-file", str(path))

    report = json.loads(result.stdout)
    assert result.exit_code == exit_code
    assert report["status"] == status
    assert report["message"] in result.stderr
    assert report.get("session_id") == ("s1" if relay.polls else None)
    assert path.read_text() == "old"
    assert list(home.iterdir()) == [path]


def test_every_exit_code_is_listed() -> None:
    """Scripts can rely on them: the help and the README say the same."""
    text = CliRunner().invoke(login, ["--help"], terminal_width=200).output
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()

    for listed in (text, readme):
        assert EXIT_CODES in " ".join(listed.split())
    for code in ("0 logged in", "2 wrong usage", *(f"{code} {status}" for status, (_, code) in FAILURES.items())):
        assert code in EXIT_CODES
    for code in ("130 interrupted", "143 terminated"):
        assert code in EXIT_CODES


def test_a_server_that_cannot_bind_needs_a_word_of_the_user(relay: ScriptedRelay) -> None:
    """Exit code 5 and the option to give; with it, the command logs in."""
    unknown = answer(400, {"code": "SCHEMA_ERROR", "error": "body contains unknown properties"})
    relay.script += [unknown, unknown, initiated(), SUCCESS]
    refused = run(relay)
    allowed = run(relay, "--allow-unbound", "--print-token")

    assert refused.exit_code == 5
    assert "--allow-unbound" in refused.stderr
    assert (allowed.exit_code, allowed.stdout) == (0, f"{TOKEN}\n")


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ([], {"status", "message", "session_id", "token_file"}),
        (["--print-token"], {"status", "message", "session_id", "refresh_token"}),
    ],
    ids=["file", "print"],
)
def test_json_is_one_object(relay: ScriptedRelay, options: list[str], fields: set[str]) -> None:
    """It holds the token only where --print-token asks for it."""
    relay.script += [initiated(), SUCCESS]
    report = json.loads(run(relay, "--json", *options).stdout)

    assert report.keys() == fields
    assert report["status"] == "success"
    assert report["session_id"] == "s1"
    assert report.get("refresh_token", TOKEN) == TOKEN


def test_a_token_file_that_cannot_be_written_costs_no_login(relay: ScriptedRelay, home: Path) -> None:
    """This is detected before anybody has to approve."""
    (home / "file").touch()
    result = run(relay, "--token-file", str(home / "file" / "token"))

    assert result.exit_code == 1
    assert str(home / "file" / "token") in result.stderr
    assert relay.received == []


@pytest.mark.parametrize(
    "options",
    [
        ["--server", "http://relay.example"],
        ["--server", "relay.example"],
        ["--project", "no-uuid"],
        ["--link", "https://app.example"],
        ["--timeout", "0"],
        ["--timeout", "86401"],
        ["--token-file", "/"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told_before_anything_is_sent(relay: ScriptedRelay, options: list[str]) -> None:
    """Exit code 2 and one line that names the mistake."""
    result = run(relay, *options)

    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert relay.received == []


def test_the_key_may_come_from_the_environment_and_the_timeout_reaches_the_server(
    relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server learns how long the login can be approved, so that the link expires with the command."""
    monkeypatch.setenv("LOGIN_RELAY_PUBLISHABLE_KEY", "pck_environment")
    relay.script += [initiated(), SUCCESS]
    result = CliRunner().invoke(login, ["--server", relay.url, "--project", PROJECT, "--timeout", "90.5"])

    assert result.exit_code == 0
    initiate = relay.received[0]
    assert initiate.headers["x-stack-publishable-client-key"] == "pck_environment"
    assert initiate.body["expires_in_millis"] == 90_500
    assert initiate.body["client_name"] == "login-relay"
    assert "up to 90 seconds" in result.stderr


def start(relay: ScriptedRelay, *options: str, prelude: str = "", **environment: str) -> subprocess.Popen[str]:
    """Start `login-relay login` in a process of its own, after a prelude in Python."""
    code = f"{prelude}\nfrom login_relay.login import login; login()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments(relay), *options],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


SIGNALS = [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "terminated", 143)]


@pytest.mark.parametrize(("sent", "status", "exit_code"), SIGNALS)
def test_a_signal_cancels_the_login(
    relay: ScriptedRelay, home: Path, sent: signal.Signals, status: str, exit_code: int
) -> None:
    """One cancel at the server, one line on the terminal, no half-written file (docs/wire.md, Cancel)."""
    polled = threading.Event()
    relay.script += [initiated(), hanging(polled), CANCELLED]
    with start(relay, "--json") as process:
        assert polled.wait(30)
        process.send_signal(sent)
        stdout, stderr = process.communicate(timeout=10)

    assert process.returncode == exit_code
    assert json.loads(stdout)["status"] == status
    assert stderr.partition("…\n")[2] == f"{status.capitalize()}.\n"
    assert [cancel.body for cancel in relay.cancels] == [relay.polls[0].body]
    assert relay.cancels[0].body.keys() == {"polling_code", "code_verifier"}
    assert [path for path in home.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("sent", "status", "exit_code"), SIGNALS)
def test_a_signal_before_there_is_a_code_just_ends_the_command(
    relay: ScriptedRelay, sent: signal.Signals, status: str, exit_code: int
) -> None:
    """There is no login to cancel yet."""
    initiating = threading.Event()
    relay.script += [hanging(initiating)]
    with start(relay) as process:
        assert initiating.wait(30)
        process.send_signal(sent)
        stdout, stderr = process.communicate(timeout=10)

    assert (process.returncode, stdout, stderr) == (exit_code, "", f"{status.capitalize()}.\n")
    assert len(relay.received) == 1


def test_a_server_that_does_not_answer_a_cancel_keeps_nobody_waiting(relay: ScriptedRelay) -> None:
    """The command ends about a second later."""
    polled = threading.Event()
    relay.script += [initiated(), hanging(polled), hang]
    with start(relay) as process:
        assert polled.wait(30)
        process.terminate()
        _, stderr = process.communicate(timeout=10)
        ended = time.monotonic()

    assert process.returncode == 143
    assert stderr.endswith("\nTerminated.\n")
    assert ended - relay.cancels[0].at < 5


SECOND_LOOK_UP_HANGS = """
import socket, time
look_up, pauses = socket.getaddrinfo, [30, 0]
def getaddrinfo(*args, **kwargs):
    time.sleep(pauses.pop())
    return look_up(*args, **kwargs)
socket.getaddrinfo = getaddrinfo
"""


def test_a_dns_server_that_does_not_answer_keeps_nobody_waiting(relay: ScriptedRelay) -> None:
    """The cancel needs a new connection. Its limit includes the look-up, and the process does not wait for that."""
    polled = threading.Event()
    relay.script += [initiated(), hanging(polled)]
    with start(relay, prelude=SECOND_LOOK_UP_HANGS) as process:
        assert polled.wait(30)
        process.terminate()
        _, stderr = process.communicate(timeout=15)

    assert process.returncode == 143
    assert stderr.endswith("\nTerminated.\n")
    assert relay.cancels == []


@pytest.mark.parametrize(("sent", "status", "exit_code"), SIGNALS)
def test_a_second_signal_ends_the_command_without_a_traceback(
    relay: ScriptedRelay, sent: signal.Signals, status: str, exit_code: int
) -> None:
    """It ends the cancel, too."""
    polled, cancelling = threading.Event(), threading.Event()
    relay.script += [initiated(), hanging(polled), hanging(cancelling)]
    with start(relay) as process:
        assert polled.wait(30)
        process.send_signal(sent)
        assert cancelling.wait(10)
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=10)

    assert process.returncode == exit_code
    assert stderr.partition("…\n")[2] == f"{status.capitalize()}.\n"
    assert len(relay.cancels) == 1


def test_a_browser_opens_the_link_and_its_chatter_stays_out(relay: ScriptedRelay, home: Path) -> None:
    """--open starts the browser of the environment; what it prints does not mix with the token."""
    browser = home / "browser"
    browser.write_text('#!/bin/sh\necho chatter\necho chatter >&2\necho "$1" > "$HOME/opened"\n')
    browser.chmod(0o700)
    os.mkfifo(home / "opened")
    link = ["--link", "https://app.example/{login_code}"]
    relay.script += [initiated(), SUCCESS]
    with start(relay, "--print-token", "--open", *link, BROWSER=str(browser)) as process:
        opened = (home / "opened").read_text()
        stdout, stderr = process.communicate(timeout=10)

    assert opened == f"https://app.example/{LOGIN_CODE}\n"
    assert stdout == f"{TOKEN}\n"
    assert "chatter" not in stderr
    assert process.returncode == 0


def test_a_login_needs_no_browser(relay: ScriptedRelay) -> None:
    """Where none starts, the link on the terminal is enough."""
    relay.script += [initiated(), SUCCESS]
    link = ["--link", "https://app.example/{login_code}"]
    with start(relay, "--print-token", "--open", *link, BROWSER="/nowhere", PATH="/nowhere") as process:
        stdout, stderr = process.communicate(timeout=10)

    assert (process.returncode, stdout) == (0, f"{TOKEN}\n")
    assert "Traceback" not in stderr
