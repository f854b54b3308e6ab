"""The commands that `serve` prints for a newcomer to paste, and the files that they need."""

import asyncio
import os
import re
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from redis.asyncio import Redis

from api.server.listening import base_url
from login_relay.operate.relay import Relay
from login_relay.run.demo import demo_project, what_to_paste
from projects.project import KeyKind
from projects.store import Projects
from runtime.redis.keys import Keys
from runtime.settings import Settings, variable


@pytest.fixture
def relay(settings: Settings, redis: Redis, keys: Keys) -> Relay:
    """The relay of this test."""
    return Relay(settings, redis, keys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder whose name breaks a shell command unless it is quoted."""
    folder = tmp_path / "it's a state folder"
    folder.mkdir(0o700)
    return folder


async def pastes(relay: Relay, folder: Path) -> list[str]:
    """Return the commands that `serve` would print now."""
    text = what_to_paste(relay.settings, folder, await demo_project(Projects(relay.redis, relay.keys), folder))
    return re.findall(r"^  (?=\S)(?:.*\\\n)*.*", text, re.MULTILINE)


def seen_while_pasted(command: str, url: str) -> tuple[str, list[str]]:
    """Run curl against a server that does not answer; returns what it sent, and all command lines meanwhile."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(20)
        pasted = command.replace(url, f"http://127.0.0.1:{listener.getsockname()[1]}").strip()
        with subprocess.Popen(["sh", "-c", f"exec {pasted} -s"], stdout=subprocess.DEVNULL) as process:
            with listener.accept()[0] as request:
                sent = request.recv(1 << 16).decode()
                listed = subprocess.run(["ps", "-A", "-ww", "-o", "args="], capture_output=True, text=True, check=True)
            process.kill()
    return sent, listed.stdout.splitlines()


def modes(folder: Path) -> dict[str, int]:
    """Return the modes of a folder's files."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


async def test_server_key_is_in_nothing_that_is_pasted_and_on_no_command_line(relay: Relay, folder: Path) -> None:
    """Neither the shell's history nor the list of processes shows it while curl runs; curl still sends it."""
    if shutil.which("curl") is None:
        pytest.skip("no curl to paste to")
    _, curl = await pastes(relay, folder)
    demo = await demo_project(Projects(relay.redis, relay.keys), folder)
    assert demo is not None
    url = base_url(relay.settings.host, relay.settings.port)
    sent, lines = await asyncio.to_thread(seen_while_pasted, curl, url)
    assert f"x-stack-secret-server-key: {demo.secret_server_key}\r\n" in sent
    assert "content-type: application/json\r\n" in sent
    assert any(line.startswith("curl ") and "demo-backend.headers" in line for line in lines)
    for secret in (demo.secret_server_key, demo.super_secret_admin_key):
        assert not any(secret in line for line in (curl, *lines))


async def test_files_of_the_demo_project_are_their_owners_alone(relay: Relay, folder: Path) -> None:
    """Including those that others could read before."""
    for name in ("demo-project.json", "demo-backend.headers"):
        (folder / name).touch(0o644)
    assert len(await pastes(relay, folder)) == 2
    assert modes(folder) == {"demo-project.json": 0o600, "demo-backend.headers": 0o600}


@pytest.mark.parametrize("is_file_lost", [False, True])
async def test_changed_keys_are_known_again_once_what_is_said_was_typed(
    relay: Relay, folder: Path, projects: Projects, *, is_file_lost: bool
) -> None:
    """The printed line writes new keys of the same project into its file, even if the file was lost."""
    before = await demo_project(Projects(relay.redis, relay.keys), folder)
    assert before is not None
    await projects.rotate(await projects.find("demo"), list(KeyKind), overlap_ms=0)
    if is_file_lost:
        (folder / "demo-project.json").unlink()
    await asyncio.sleep(0.002)  # the old keys were valid for the rest of their last millisecond
    [line] = await pastes(relay, folder)
    assert not any(getattr(before, kind) in line for kind in KeyKind)

    own = {variable(name): str(getattr(relay.settings, name)) for name in ("redis_url", "prefix")}
    typed = await asyncio.to_thread(
        subprocess.run, ["sh", "-c", line], env=os.environ | own, capture_output=True, text=True, check=True
    )
    assert (typed.stdout, typed.stderr) == ("", "")
    assert len(await pastes(relay, folder)) == 2
    after = await demo_project(Projects(relay.redis, relay.keys), folder)
    assert after is not None
    assert after.project_id == before.project_id
    project, now = await projects.read(after.project_id)
    assert project is not None
    assert all(project.keys[kind].matches(getattr(after, kind), now) for kind in KeyKind)
    assert after.secret_server_key in (folder / "demo-backend.headers").read_text()
