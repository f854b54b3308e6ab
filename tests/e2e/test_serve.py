import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import httpx
import msgspec
import pytest
from joserfc.jwk import KeySet, OKPKey
from redis import Redis

from projects.project import KeyKind
from runtime.master_secrets import read_master_secrets
from runtime.redis.keys import Keys
from runtime.settings import Settings, variable
from tests.support.redis_server import free_port
from tokens.announcing import Announcement

COMMAND = Path(sys.executable).with_name("login-relay")
STARTUP = 60.0  # seconds; it is ready in three, on a busy machine in more
SHUTDOWN = 30.0  # seconds
LOGIN_CODE = re.compile(r"\b[A-Z]{4}-[A-Z]{4}-[A-Z]{4}\b")


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `login-relay …` to its end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOGIN_RELAY_")}
    return subprocess.run(
        [COMMAND, *arguments],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=STARTUP,
        check=False,
    )


def refusal(result: subprocess.CompletedProcess[str], exit_code: int) -> str:
    """Return the one line of a command that failed with `exit_code`."""
    assert (result.returncode, result.stdout) == (exit_code, ""), result.stderr
    [line] = result.stderr.splitlines()
    assert line.startswith("login-relay: ")
    return line


def eventually(is_so: Callable[[], object], within: float) -> None:
    """Wait until a condition holds; fail when it does not in time."""
    until = time.monotonic() + within
    while not is_so():
        assert time.monotonic() < until, is_so
        time.sleep(0.02)


def processes() -> dict[int, tuple[int, str, str]]:
    """Return the parent, state and command line of every process of this machine."""
    listing = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True
    )
    rows = (line.split(None, 3) for line in listing.stdout.splitlines())
    return {int(row[0]): (int(row[1]), row[2], row[3] if row[3:] else "") for row in rows}


def are_gone(pids: set[int]) -> bool:
    """Return whether none of these processes runs any more; a zombie does not run."""
    found = processes()
    return not any(pid in found and not found[pid][1].startswith("Z") for pid in pids)


class Serve:
    """One run of `login-relay serve`, started as from a terminal."""

    def __init__(self, folder: Path, log: Path, port: int | None = None, **variables: str) -> None:
        self.state = folder
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LOGIN_RELAY_")}
        with log.with_suffix(".out").open("wb") as out, log.with_suffix(".err").open("wb") as err:
            self.process = subprocess.Popen(
                [COMMAND, "serve", "--port", str(self.port)],
                env=environment | {variable("state_dir"): str(folder)} | variables,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """Return what it printed."""
        return self._log.with_suffix(".out").read_text()

    @property
    def errors(self) -> str:
        """What it and its children wrote to standard error."""
        return self._log.with_suffix(".err").read_text()

    def wait_until_ready(self) -> "Serve":
        """Wait until it prints that it is ready."""

        def is_ready() -> bool:
            assert self.process.poll() is None, self.errors
            return self.output.endswith("\n\n")

        eventually(is_ready, STARTUP)
        return self

    def children(self) -> dict[int, str]:
        """Return its children, and theirs, with their command lines."""
        found, wanted = processes(), {self.process.pid}
        for _ in range(3):
            wanted |= {pid for pid, (parent, _, _) in found.items() if parent in wanted}
        return {pid: found[pid][2] for pid in wanted - {self.process.pid} if pid in found}

    def child(self, name: str) -> int:
        """Return the child whose command line contains a word."""
        found = processes()
        [pid] = [
            pid
            for pid, line in self.children().items()
            if found[pid][0] == self.process.pid and re.search(rf"\b{name}\b", line)
        ]
        return pid

    def press_ctrl_c(self) -> int:
        """Send SIGINT, as a terminal does at Ctrl-C; returns the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(SHUTDOWN)

    def project(self) -> dict[str, str]:
        """Return the demo project with its keys."""
        kept: dict[str, str] = json.loads((self.state / "demo-project.json").read_text())
        return kept

    def post(self, path: str, kind: KeyKind, body: dict[str, str]) -> httpx.Response:
        """Send a request with one of the demo project's keys."""
        project = self.project()
        headers = {
            "x-stack-project-id": project["project_id"],
            f"x-stack-{kind.value.replace('_', '-')}": project[kind],
        }
        return httpx.post(f"{self.url}/api/v1/auth/cli{path}", headers=headers, json=body, trust_env=False)

    def end(self) -> None:
        """End it and all that it started, now."""
        pids = set(self.children())
        self.process.kill()
        self.process.wait()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: are_gone(pids), SHUTDOWN)


StartServe = Callable[..., Serve]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder that does not exist yet."""
    return tmp_path / "state"


@pytest.fixture
def start(state: Path, tmp_path: Path) -> Iterator[StartServe]:
    """Start `serve`, in `state` unless told otherwise; all are ended after the test."""
    started: list[Serve] = []

    def start_serve(folder: Path = state, port: int | None = None, **variables: str) -> Serve:
        serve = Serve(folder, tmp_path / f"serve-{len(started)}", port, **variables)
        started.append(serve)
        return serve

    yield start_serve
    for serve in started:
        serve.end()


def test_pasted_lines_complete_a_login(start: StartServe, tmp_path: Path) -> None:
    """Its output is enough, pasted unchanged but for the code. No command line of ours holds a secret."""
    if shutil.which("curl") is None:
        pytest.skip("no curl to paste to")
    serve = start().wait_until_ready()
    assert serve.url in serve.output
    assert serve.errors == ""
    login_line, curl_line = re.findall(r"^  (?=\S)(?:.*\\\n)*.*", serve.output, re.MULTILINE)
    environment = os.environ | {"HOME": str(tmp_path)}
    with (tmp_path / "login.err").open("wb") as err:
        login = subprocess.Popen(
            ["sh", "-c", f"{login_line} --no-open"], env=environment, stdout=subprocess.PIPE, stderr=err
        )
    eventually(lambda: LOGIN_CODE.search((tmp_path / "login.err").read_text()), STARTUP)
    shown = LOGIN_CODE.search((tmp_path / "login.err").read_text())
    assert shown is not None
    pasted = curl_line.replace("XXXX-XXXX-XXXX", shown[0])
    completed = subprocess.run(["sh", "-c", f"{pasted} -s"], capture_output=True, text=True, timeout=20, check=True)
    assert completed.stdout == "{}"
    token, _ = login.communicate(timeout=20)
    assert login.returncode == 0
    assert token.startswith(b"lrt_")
    project = serve.project()
    for line in serve.children().values():
        assert not any(project[kind] in line for kind in KeyKind)
    assert not any(project[kind] in serve.output for kind in (KeyKind.SECRET_SERVER, KeyKind.SUPER_SECRET_ADMIN))


def test_ctrl_c_stops_all_of_it_quietly(start: StartServe, state: Path) -> None:
    """Exit code 0, nothing on standard error, and nothing is left: no process, no socket, no URL."""
    serve = start().wait_until_ready()
    children = serve.children()
    assert len(children) >= 3  # Valkey, a worker, the API
    # The terminal's signal reaches `serve` alone, which then stops the others in their order.
    assert serve.process.pid not in {os.getpgid(pid) for pid in children}
    assert serve.press_ctrl_c() == 0
    assert are_gone(set(children))
    assert serve.errors == ""
    assert not list(state.glob("*.sock"))
    assert not (state / "redis.url").exists()


def test_state_is_its_owner_s_alone(start: StartServe, state: Path) -> None:
    """Folder and files; other commands find the server through them."""
    serve = start().wait_until_ready()
    paths = [state, *state.rglob("*")]
    assert {"redis.url", "keys.json", "demo-project.json", "demo-backend.headers", "valkey.log", "valkey.sock"} <= {
        path.name for path in paths
    }
    assert not [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077]
    listed = run("projects", "list", "--json", **{variable("state_dir"): str(state)})
    assert [row["project_id"] for row in json.loads(listed.stdout)] == [serve.project()["project_id"]]
    with Redis.from_url((state / "redis.url").read_text()) as redis:
        assert redis.info("memory")["maxmemory"] == 2 << 30  # half of LOGIN_RELAY_REDIS_MEMORY_MB
    [worker] = json.loads(run("status", "--json", **{variable("state_dir"): str(state)}).stdout)["workers"]
    assert worker["alive"]
    assert run("health", "worker", **{variable("state_dir"): str(state)}).returncode == 0
    assert run("health", "api", "--url", serve.url).returncode == 0


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_session_survives_a_restart(start: StartServe, end: signal.Signals) -> None:
    """A login begun before it is completed after it, and pasted keys still work, however `serve` ended."""
    port = free_port()
    first = start(port=port).wait_until_ready()
    begun = first.post("", KeyKind.PUBLISHABLE_CLIENT, {}).json()
    printed, children, server = first.output, first.children(), first.child("valkey-server")
    first.process.send_signal(end)
    assert first.process.wait(SHUTDOWN) == (-signal.SIGKILL if end is signal.SIGKILL else 0)
    if end is signal.SIGKILL:
        # The server lives on, as nothing stops it; the rest ends with `serve`, and frees the port.
        eventually(lambda: are_gone(set(children) - {server}), SHUTDOWN)
        assert not are_gone({server})

    second = start(port=port).wait_until_ready()
    assert are_gone(set(children))
    assert second.output == printed
    completed = second.post("/complete", KeyKind.SECRET_SERVER, {"login_code": begun["login_code"]})
    assert (completed.status_code, completed.text) == (200, "{}")
    polled = second.post("/poll", KeyKind.PUBLISHABLE_CLIENT, {"polling_code": begun["polling_code"]})
    assert polled.status_code == 201
    assert second.press_ctrl_c() == 0


@pytest.mark.parametrize("name", ["worker", "api", "valkey-server"])
def test_child_that_dies_ends_all_of_it(start: StartServe, name: str) -> None:
    """Exit code 1; the last line names the child and how it ended; the others are stopped."""
    serve = start().wait_until_ready()
    children = serve.children()
    os.kill(serve.child(name), signal.SIGKILL)
    assert serve.process.wait(SHUTDOWN) == 1
    assert are_gone(set(children))
    last = serve.errors.splitlines()[-1]
    assert re.match(rf"login-relay: {name.removesuffix('-server')} .*SIGKILL", last, re.IGNORECASE)


@pytest.mark.parametrize("sign", ["redis.url", "valkey.sock", "demo-project.json"])
def test_signal_during_the_start_stops_it(start: StartServe, state: Path, sign: str) -> None:
    """At any moment of the start: exit code 0, and nothing is left."""
    serve = start()
    eventually((state / sign).exists, STARTUP)
    children = serve.children()
    serve.process.terminate()
    assert serve.process.wait(SHUTDOWN) == 0, serve.errors
    assert serve.output == ""
    assert are_gone(set(children))
    assert not (state / "redis.url").exists()


def test_second_serve_is_refused(start: StartServe, state: Path) -> None:
    """The folder is in use, or the port is: one line each, exit code 2, and the first goes on."""
    first = start().wait_until_ready()
    folder = {variable("state_dir"): str(state)}
    assert str(state) in refusal(run("serve", "--port", str(free_port()), **folder), 2)
    other = {variable("state_dir"): str(state.with_name("other"))}
    assert str(first.port) in refusal(run("serve", "--port", str(first.port), **other), 2)
    assert str(first.port) in refusal(run("api", "--port", str(first.port), **folder), 2)
    assert httpx.get(f"{first.url}/health/ready", trust_env=False).status_code == 200
    assert first.press_ctrl_c() == 0


def test_port_in_use_is_told_before_anything_is_started(state: Path) -> None:
    """Nothing is created in the state folder, not even the folder."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        line = refusal(run("serve", "--port", port, **{variable("state_dir"): str(state)}), 2)
    assert port in line
    assert "--port" in line
    assert not state.exists()


@pytest.mark.parametrize(
    ("command", "setting", "value"),
    [
        *((command, "redis_url", "localhost") for command in ("serve", "api", "worker")),
        *((command, "port", "http") for command in ("serve", "api", "worker")),
        *((command, "block_ms", "9999999") for command in ("serve", "api", "worker")),
        *((command, "host", "no.such.host.invalid") for command in ("serve", "api")),  # a worker listens nowhere
    ],
)
def test_bad_setting_is_told_in_one_line(state: Path, command: str, setting: str, value: str) -> None:
    """Exit code 2, with the variable's name, and nothing is created."""
    settings = {
        variable("state_dir"): str(state),
        variable("redis_url"): "redis://127.0.0.1:1",
        variable(setting): value,
    }
    assert variable(setting) in refusal(run(command, **settings), 2)
    assert not state.exists()


@pytest.mark.parametrize("command", ["serve", "api"])
def test_unusable_key_file_is_told_before_anything_is_started(state: Path, tmp_path: Path, command: str) -> None:
    """The settings are checked together with the files that they name."""
    (tmp_path / "jwks.json").write_text("{}")
    settings = {
        variable("state_dir"): str(state),
        variable("redis_url"): "redis://127.0.0.1:1",
        variable("admin_jwks_file"): str(tmp_path / "jwks.json"),
        variable("admin_issuer"): "https://issuer.example",
        variable("admin_audience"): "relay",
    }
    assert variable("admin_jwks_file") in refusal(run(command, "--port", str(free_port()), **settings), 2)
    assert not state.exists()


@pytest.mark.parametrize("command", ["serve", "api"])
def test_unusable_master_secrets_are_told_before_anything_is_started(state: Path, tmp_path: Path, command: str) -> None:
    """In one line, with the variable and the file."""
    path = tmp_path / "keys.json"
    path.write_text('{"keys": []}')
    path.chmod(0o600)
    settings = {
        variable("state_dir"): str(state),
        variable("redis_url"): "redis://127.0.0.1:1",
        variable("keys_file"): str(path),
    }
    line = refusal(run(command, "--port", str(free_port()), **settings), 2)
    assert line.startswith(f"login-relay: {variable('keys_file')}: {path} ")
    assert not state.exists()


def announced(state: Path) -> list[Announcement]:
    """Return what the API processes of a running `serve` have."""
    with Redis.from_url((state / "redis.url").read_text()) as redis:
        found = cast("list[bytes]", redis.zrange(Keys("lr", 1).master_secrets(), 0, -1))
    return [msgspec.json.decode(one, type=Announcement) for one in found]


def test_master_secrets_are_made_once_and_kept(start: StartServe, state: Path) -> None:
    """In the state folder, for the API alone; its issuer is on this machine, and `doctor` and `keys` find the file."""
    serve = start().wait_until_ready()
    path, of_state = state / "keys.json", {variable("state_dir"): str(state)}
    [secret] = read_master_secrets(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    eventually(lambda: announced(state), STARTUP)
    [announcement] = announced(state)
    assert announcement.fingerprints == (secret.fingerprint,)
    assert announcement.public_url == serve.url
    [listed] = json.loads(run("keys", "list", "--json", **of_state).stdout)["keys"]
    assert listed["kid"] == secret.kid
    checks = {check["name"]: check for check in json.loads(run("doctor", "--json", **of_state).stdout)["checks"]}
    assert [checks[name]["level"] for name in ("tokens", "keys file")] == ["ok", "ok"]
    for pid, line in serve.children().items():
        environment = Path(f"/proc/{pid}/environ")
        told = line.encode() + (environment.read_bytes() if environment.exists() else b"")
        assert json.loads(path.read_text())["keys"][0]["k"].encode() not in told
    assert serve.press_ctrl_c() == 0
    start().wait_until_ready()
    assert read_master_secrets(path) == (secret,)


def test_second_api_beside_serve_has_its_master_secrets(start: StartServe, state: Path, tmp_path: Path) -> None:
    """It finds them in the state folder, as it finds the server."""
    serve = start().wait_until_ready()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOGIN_RELAY_")}
    settings = {variable("state_dir"): str(state), variable("public_url"): serve.url}
    with (tmp_path / "api.log").open("wb") as log:
        api = subprocess.Popen(
            [COMMAND, "api", "--port", str(free_port())], env=environment | settings, stdout=log, stderr=log
        )
    try:
        eventually(lambda: len(announced(state)) == 2, STARTUP)
        assert len({one.fingerprints for one in announced(state)}) == 1
        checks = json.loads(run("doctor", "--json", **{variable("state_dir"): str(state)}).stdout)["checks"]
        assert [check["level"] for check in checks if check["name"] == "tokens"] == ["ok"]
    finally:
        api.terminate()
        api.wait(SHUTDOWN)
    eventually(lambda: len(announced(state)) == 1, SHUTDOWN)  # at its end, not when its announcement expires


@pytest.mark.parametrize("missing", ["admin_issuer", "admin_audience"])
@pytest.mark.parametrize("command", ["serve", "api"])
def test_key_file_without_an_issuer_or_an_audience_is_refused(
    state: Path, tmp_path: Path, command: str, missing: str
) -> None:
    """An API that would accept tokens which the same keys signed for another service does not start."""
    (tmp_path / "jwks.json").write_text(json.dumps(KeySet([OKPKey.generate_key("Ed25519")]).as_dict(private=False)))
    settings = {
        variable("state_dir"): str(state),
        variable("redis_url"): "redis://127.0.0.1:1",
        variable("admin_jwks_file"): str(tmp_path / "jwks.json"),
        variable("admin_issuer"): "https://issuer.example",
        variable("admin_audience"): "relay",
        variable(missing): "",
    }
    assert variable(missing) in refusal(run(command, "--port", str(free_port()), **settings), 2)
    assert not state.exists()


def test_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    """A file in its place, or a folder that others can write to."""
    (tmp_path / "file").touch()
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    for folder in (tmp_path / "file", tmp_path / "file" / "below", shared):
        line = refusal(run("serve", "--port", str(free_port()), **{variable("state_dir"): str(folder)}), 2)
        assert variable("state_dir") in line
    assert not list(shared.iterdir())


def test_link_in_the_state_folder_is_not_followed(state: Path, tmp_path: Path) -> None:
    """Nothing is started, and the target of the link keeps its content and its mode."""
    target = tmp_path / "target"
    target.write_text("precious")
    target.chmod(0o644)
    state.mkdir(0o700)
    (state / "demo-project.json").symlink_to(target)
    line = refusal(run("serve", "--port", str(free_port()), **{variable("state_dir"): str(state)}), 2)
    assert str(state / "demo-project.json") in line
    assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ("precious", 0o644)
    assert [path.name for path in state.iterdir()] == ["demo-project.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder another user's")
def test_state_folder_of_another_user_is_refused_as_root_too(state: Path) -> None:
    """Nothing in it is read or created: its owner could name a Redis of their own, or take the keys."""
    state.mkdir(0o700)
    (state / "redis.url").write_text(f"unix://{state / 'valkey.sock'}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(state / "valkey.sock"))
        listener.listen()
        listener.settimeout(0)
        for path in (*state.iterdir(), state):
            shutil.chown(path, "nobody")
        for command in (("serve", "--port", str(free_port())), ("projects", "list"), ("worker",)):
            line = refusal(run(*command, **{variable("state_dir"): str(state)}), 2)
            assert str(state) in line
            assert "nobody" in line
        with pytest.raises(BlockingIOError):  # nobody has connected
            listener.accept()
    assert {path.name for path in state.iterdir()} == {"redis.url", "valkey.sock"}


@pytest.mark.parametrize("command", ["api", "worker"])
def test_without_a_redis_the_line_says_what_to_do(state: Path, command: str) -> None:
    """`api` and `worker` bring none; the line names the folder that was searched."""
    line = refusal(run(command, **{variable("state_dir"): str(state)}), 2)
    assert all(word in line for word in (variable("redis_url"), "login-relay serve", str(state)))


def test_deep_state_folder_works(start: StartServe, tmp_path: Path) -> None:
    """A socket's path has at most 107 bytes: for a deep folder it is elsewhere, and other commands find it."""
    deep = tmp_path / "a folder, deep & odd 'äöü'?#%20" / ("x" * 100)
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    serve = start(deep, TMPDIR=str(elsewhere)).wait_until_ready()
    [sock] = elsewhere.glob("*/valkey.sock")
    assert stat.S_IMODE(sock.parent.stat().st_mode) == 0o700
    assert run("health", "worker", **{variable("state_dir"): str(deep)}).returncode == 0
    assert not list(deep.glob("*.sock"))
    begun = serve.post("", KeyKind.PUBLISHABLE_CLIENT, {})
    assert begun.status_code == 200
    assert serve.press_ctrl_c() == 0
    assert list((deep / "appendonlydir").iterdir())
    assert not list(elsewhere.iterdir())


def test_redis_of_one_s_own_is_used(start: StartServe, settings: Settings, state: Path) -> None:
    """With the setting there is no embedded server, and the URL is on no command line."""
    assert settings.redis_url is not None
    own = {variable("redis_url"): settings.redis_url, variable("prefix"): settings.prefix}
    serve = start(**own).wait_until_ready()
    lines = list(serve.children().values())
    assert not any("valkey-server" in line or settings.redis_url in line for line in lines)
    listed = json.loads(run("projects", "list", "--json", **own).stdout)
    assert [row["project_id"] for row in listed] == [serve.project()["project_id"]]

    assert serve.press_ctrl_c() == 0
    assert run("projects", "rotate", "demo", "--overlap", "0", **own).returncode == 0
    (state.parent / "url").write_text(settings.redis_url)
    again = start(**own | {variable("redis_url"): "", variable("redis_url_file"): str(state.parent / "url")})
    again.wait_until_ready()
    assert "projects rotate demo" in again.output  # its keys are not those in the file any more
    assert not any(serve.project()[kind] in again.output for kind in KeyKind)
    assert again.press_ctrl_c() == 0
    assert not list(state.glob("appendonlydir"))


def test_redis_that_is_not_there_ends_the_start(state: Path) -> None:
    """Exit code 1 and one line, without the password."""
    settings = {variable("state_dir"): str(state), variable("redis_url"): "redis://:opensesame@127.0.0.1:1"}
    line = refusal(run("serve", "--port", str(free_port()), **settings), 1)
    assert "Redis cannot be reached" in line
    assert "opensesame" not in line
