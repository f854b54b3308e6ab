import json
import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from login_relay.cli import main
from runtime.master_secret import MasterSecret, new_master_secret
from runtime.master_secrets import MOST, read_master_secrets, write_master_secrets
from runtime.settings import variable
from tests.support.operate import RFC_3339, refused, shown


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that does not exist yet."""
    return tmp_path / "keys.json"


Run = Callable[..., Result]


@pytest.fixture
def operate() -> Run:
    """Run `login-relay …`; these commands need no Redis."""

    def run(*arguments: str, **variables: str) -> Result:
        return CliRunner().invoke(main, arguments, env=variables, catch_exceptions=False)

    return run


def make(path: Path, *ages: int | None) -> list[str]:
    """Write a file with one secret for each age in seconds; return their kids."""
    made = [new_master_secret() for _ in ages]
    secrets = [
        MasterSecret(one.kid, one.secret, None if age is None or one.added_at is None else one.added_at - age)
        for one, age in zip(made, ages, strict=True)
    ]
    write_master_secrets(path, secrets, is_new=True)
    return [one.kid for one in secrets]


def kids(path: Path) -> list[str]:
    """Return the kids of a file, in order."""
    return [one.kid for one in read_master_secrets(path)]


def test_secret_is_replaced_step_by_step(operate: Run, path: Path) -> None:
    """Create, add, promote, drop: as the help says, with what each command prints for a program."""
    given = ("--file", str(path), "--json")
    created = shown(operate("keys", "create", *given))
    [first] = created["keys"]
    assert (created["file"], first["signs"], first["promote_after"]) == (str(path), True, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    added = shown(operate("keys", "add", *given))["keys"]
    assert [one["kid"] for one in added] == kids(path)
    assert [one["signs"] for one in added] == [True, False]
    assert RFC_3339.fullmatch(added[1]["added_at"])
    assert added[1]["promote_after"] > added[1]["added_at"]
    new = added[1]["kid"]
    promoted = shown(operate("keys", "promote", new, "--now", *given))["keys"]
    assert [one["kid"] for one in promoted] == [new, first["kid"]] == kids(path)
    assert [one["kid"] for one in shown(operate("keys", "drop", first["kid"], *given))["keys"]] == [new]
    assert kids(path) == [new]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_command_shows_a_secret(operate: Run, path: Path) -> None:
    """For people and for programs; each says what to type next, with the right kid."""
    outputs = []
    for command in ("create", "add", "list", "promote", "drop"):
        kid = {"promote": kids(path)[-1], "drop": kids(path)[-1]}.get(command) if path.exists() else None
        options = [*([kid] if kid else []), *(["--now"] if command == "promote" else []), "--file", str(path)]
        result = operate("keys", command, *options)
        assert result.exit_code == 0, result.stderr
        outputs.append(result.output)
        secrets = json.loads(path.read_text())["keys"]
        assert not any(one["k"] in output for one in secrets for output in outputs)
    assert "login-relay keys promote" in outputs[1]
    assert "login-relay keys drop" in outputs[3]


def test_file_in_use_is_not_overwritten(operate: Run, path: Path) -> None:
    """A second `create` is refused; with --if-missing it only checks the file."""
    [kid] = make(path, 0)
    before = path.read_bytes()
    given = ("--file", str(path))
    assert "exists" in refused(operate("keys", "create", *given), 1)
    assert shown(operate("keys", "create", "--if-missing", *given, "--json"))["keys"][0]["kid"] == kid
    assert path.read_bytes() == before
    path.chmod(0o644)
    assert "chmod 600" in refused(operate("keys", "create", "--if-missing", *given), 1)


def test_secret_is_promoted_when_no_cache_can_lack_its_keys(operate: Run, path: Path) -> None:
    """An hour after it was added; not before, unless it is said that it must be now."""
    old, young, aged = make(path, 9_999, 3_500, 3_700)
    given = ("--file", str(path))
    line = refused(operate("keys", "promote", young, *given), 1)
    assert "--now" in line
    assert kids(path) == [old, young, aged]
    assert (operate("keys", "promote", aged, *given)).exit_code == 0
    assert kids(path) == [aged, old, young]
    assert (operate("keys", "promote", young, "--now", *given)).exit_code == 0
    assert kids(path) == [young, aged, old]
    assert "first already" in refused(operate("keys", "promote", young, *given), 1)


def test_secret_of_unknown_age_may_be_promoted(operate: Run, path: Path) -> None:
    """In a file of another program, which does not say when it was added."""
    first, second = make(path, None, None)
    listed = shown(operate("keys", "list", "--file", str(path), "--json"))["keys"]
    assert [(one["added_at"], one["promote_after"]) for one in listed] == [(None, None)] * 2
    assert (operate("keys", "promote", second, "--file", str(path))).exit_code == 0
    assert kids(path) == [second, first]


def test_secret_that_signs_is_not_dropped(operate: Run, path: Path) -> None:
    """Nor is the last one; the line says what to do first."""
    first, second = make(path, 0, 0)
    given = ("--file", str(path))
    assert "promote another one first" in refused(operate("keys", "drop", first, *given), 1)
    assert (operate("keys", "drop", second, *given)).exit_code == 0
    assert "it is the last" in refused(operate("keys", "drop", first, *given), 1)
    assert kids(path) == [first]


def test_commands_at_once_lose_no_change(path: Path) -> None:
    """Each reads what the one before wrote: they wait for each other, and so leave one lock and nothing else."""
    [first] = make(path, 0)
    command = [sys.executable, "-m", "login_relay", "keys", "add", "--file", str(path), "--json"]
    at_once = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(MOST - 1)]
    added = {json.loads(one.communicate(timeout=60)[0])["keys"][-1]["kid"] for one in at_once}
    assert set(kids(path)) == {first, *added}
    assert len(kids(path)) == MOST
    assert sorted(one.name for one in path.parent.iterdir()) == [f".{path.name}.lock", path.name]


def test_two_that_make_the_file_at_once_get_the_same(path: Path) -> None:
    """With --if-missing, as replicas that start together: one makes it, the others keep it."""
    command = [sys.executable, "-m", "login_relay", "keys", "create", "--if-missing", "--file", str(path), "--json"]
    at_once = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    made = {json.loads(one.communicate(timeout=60)[0])["keys"][0]["kid"] for one in at_once}
    assert made == set(kids(path))


def test_file_holds_so_many_secrets(operate: Run, path: Path) -> None:
    """A ninth is refused, not written: no process could read the file."""
    make(path, *[0] * MOST)
    assert "drop one first" in refused(operate("keys", "add", "--file", str(path)), 1)
    assert len(kids(path)) == MOST


@pytest.mark.parametrize("command", ["add", "list", "promote x", "drop x"])
def test_file_or_kid_that_is_not_there_is_told_in_one_line(operate: Run, path: Path, command: str) -> None:
    """With the command that makes the file, or shows the kids."""
    arguments = ("keys", *command.split(), "--file", str(path))
    assert f"login-relay keys create --file {shlex.quote(str(path))}" in refused(operate(*arguments), 1)
    if "x" in command:
        make(path, 0)
        assert "login-relay keys list" in refused(operate(*arguments), 1)


def test_file_is_that_of_the_settings_or_of_serve(operate: Run, path: Path, tmp_path: Path) -> None:
    """In this order; without either, the line names the option and the variable."""
    [kid] = make(path, 0)
    shown_by_setting = shown(operate("keys", "list", "--json", **{variable("keys_file"): str(path)}))
    assert shown_by_setting["keys"][0]["kid"] == kid
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    of_serve = {variable("state_dir"): str(state), variable("redis_url"): "", variable("keys_file"): ""}
    line = refused(operate("keys", "list", **of_serve), 2)
    assert "--file" in line
    assert variable("keys_file") in line
    [kid] = make(state / "keys.json", 0)
    assert shown(operate("keys", "list", "--json", **of_serve))["keys"][0]["kid"] == kid


def test_two_that_create_at_once_make_one_file(path: Path) -> None:
    """Several API containers that start together: one makes it, and the others keep that."""
    command = (sys.executable, "-m", "login_relay", "keys", "create", "--file", str(path), "--json")
    running = [
        subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(4)
    ]
    made = [(process.communicate(timeout=60)[0], process.returncode) for process in running]
    [output] = [output for output, code in made if code == 0]
    assert sorted(code for _, code in made) == [0, 1, 1, 1]
    assert [one["kid"] for one in json.loads(output)["keys"]] == kids(path)
