import asyncio
import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from runtime.settings import Settings
from statemachine.events import STATE_AFTER
from statemachine.session import ClientFacts
from tests.support.eventually import wait_until
from tests.support.relay import LIFETIME_MS, PROJECT, Relay, working

COMMAND = (sys.executable, "-m", "login_relay", "top")


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    """The same environment, at a terminal of 80 columns and 24 lines."""
    return os.environ | environment | {"COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color"}


async def run(environment: dict[str, str], *options: str) -> str:
    """Run `login-relay top` with options; returns what it printed."""
    done = await asyncio.to_thread(
        subprocess.run, [*COMMAND, *options], env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout


async def test_one_look_is_one_json_object(relay: Relay, environment: dict[str, str], settings: Settings) -> None:
    """Rates, times, the state of the commands, the worker and the sessions, for a script."""
    async with working(settings):
        consumed = (await relay.initiate()).session_id
        await relay.complete(consumed)
        await wait_until(lambda: has_state(relay, consumed, "completed"))
        await relay.consume(consumed)
        await wait_until(lambda: has_state(relay, consumed, "consumed"))
        pending = (await relay.initiate()).session_id
        seen = json.loads(await run(environment, "--once", "--json"))
    happened = {"session.initiated": 2, "session.completed": 1, "session.consumed": 1}
    assert seen["events"] == dict.fromkeys(STATE_AFTER, 0) | happened
    assert seen["logins_per_s"] == round(1 / seen["window_s"], 2)
    assert {step: latency["count"] for step, latency in seen["latencies"].items()} == {
        "initiate_to_complete": 1,
        "complete_to_consume": 1,
    }
    assert [(session["session_id"], session["state"]) for session in seen["sessions"]] == [
        (pending, "pending"),
        (consumed, "consumed"),
    ]
    assert [worker["alive"] for worker in seen["workers"]] == [True]
    assert [(row["partition"], row["backlog"]) for row in seen["partitions"]] == [(0, 0)]


async def has_state(relay: Relay, session_id: str, state: str) -> bool:
    """Whether a session is in a state."""
    return (await relay.session(session_id)).state == state


async def test_one_look_fits_a_small_terminal(relay: Relay, environment: dict[str, str]) -> None:
    """It fits into 80 columns and 24 lines, with more sessions than have room and a name that is too long."""
    client = ClientFacts("a tool with a very long name, longer than any column can be made for it " * 2)
    for _ in range(30):
        await relay.initiations.initiate(PROJECT, client, LIFETIME_MS)
    lines = (await run(environment, "--once")).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert any("pending" in line and "a tool" in line for line in lines), "\n".join(lines)


async def test_what_strangers_wrote_cannot_steer_the_terminal(relay: Relay, environment: dict[str, str]) -> None:
    """Control characters are left out, and markup is shown as text."""
    await relay.initiations.initiate(PROJECT, ClientFacts("\x1b[2J\x07[b]x"), LIFETIME_MS)
    text = await run(environment, "--once")
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[2J[b]x" in text


async def test_a_look_can_be_drawn(relay: Relay, environment: dict[str, str], tmp_path: Path) -> None:
    """Like the picture in the README."""
    session_id = (await relay.initiate()).session_id
    await run(environment, "--once", "--svg", str(tmp_path / "top.svg"))
    picture = (tmp_path / "top.svg").read_text()
    assert picture.startswith("<svg")
    assert session_id in picture
    assert "https://" not in picture, "whoever looks at it would fetch something from elsewhere"


async def test_live_view_follows_what_happens(relay: Relay, environment: dict[str, str]) -> None:
    """A session that begins meanwhile appears; Ctrl-C ends the view and restores the screen."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    os.set_blocking(leader, False)
    screen = bytearray()

    def shows(text: str) -> bool:
        with contextlib.suppress(BlockingIOError):
            while found := os.read(leader, 65_536):
                screen.extend(found)
        return text.encode() in screen

    process = await asyncio.create_subprocess_exec(
        *COMMAND, "--interval", "0.2", env=environment, stdin=follower, stdout=follower, stderr=follower
    )
    try:
        await wait_until(lambda: shows("None in the last minutes."), within=20)
        session_id = (await relay.initiate()).session_id
        await wait_until(lambda: shows(session_id))
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 10) == 130
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert shows("\x1b[?1049l")
    assert b"Traceback" not in screen
    os.close(leader)
    os.close(follower)


@pytest.mark.parametrize("options", [(), ("--json",), ("--svg", "x.svg")])
def test_live_view_is_refused_where_it_makes_no_sense(environment: dict[str, str], options: tuple[str, ...]) -> None:
    """Without a terminal, or with an option to print: exit code 2 and one line that says what would work."""
    done = subprocess.run([*COMMAND, *options], env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "--once" in line
