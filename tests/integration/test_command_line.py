import subprocess
import sys
from pathlib import Path

import click
import pytest

from login_relay.cli import COMMANDS, main
from runtime.settings import variable
from tests.support.operate import Operate, refused


@pytest.mark.parametrize("command", ["status", "projects list", "events", "dead-letters list", "health worker"])
async def test_redis_that_is_not_there_is_told_in_one_line(operate: Operate, command: str) -> None:
    """Exit code 1; a password in the URL is not repeated."""
    url = "redis://user:opensesame@127.0.0.1:1/0"
    line = refused(await operate(*command.split(), **{variable("redis_url"): url}), 1)
    assert "Redis cannot be reached" in line
    assert "opensesame" not in line


@pytest.mark.parametrize(
    ("setting", "value"),
    [("redis_url", "localhost"), ("partitions", "0"), ("port", "http"), ("redis_urll", "redis://localhost")],
)
async def test_bad_setting_is_told_in_one_line(operate: Operate, setting: str, value: str) -> None:
    """Exit code 2, with the variable's name."""
    assert variable(setting) in refused(await operate("status", **{variable(setting): value}), 2)


async def test_without_a_redis_the_line_says_what_to_do(operate: Operate, tmp_path: Path) -> None:
    """Without the setting and a running `serve`: the line names both, and the folder that was searched."""
    line = refused(await operate("status", **{variable("redis_url"): "", variable("state_dir"): str(tmp_path)}), 2)
    assert all(word in line for word in (variable("redis_url"), "login-relay serve", str(tmp_path)))


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["status", "--nothing"], ["status", "more"], ["projects", "create"], ["serve", "--port", "0"]],
)
async def test_wrong_usage_is_told_in_one_line(operate: Operate, arguments: list[str]) -> None:
    """The line points to the help."""
    assert "--help`" in refused(await operate(*arguments), 2)


@pytest.mark.parametrize("arguments", [[], ["projects"], ["dead-letters"]])
async def test_group_without_a_command_shows_its_help(operate: Operate, arguments: list[str]) -> None:
    """On standard error, with exit code 2: nothing was done."""
    result = await operate(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Commands:" in result.stderr


def test_help_says_of_each_command_what_the_command_says() -> None:
    """The help keeps its lines apart from the commands, so that it imports none of them."""
    context = click.Context(main)
    for name, place in COMMANDS.items():
        command = main.get_command(context, name)
        assert command is not None
        assert place.line == command.get_short_help_str(limit=100)


def test_help_is_quick() -> None:
    """It imports neither Redis' client nor the web framework: a shell's completion waits for it."""
    code = (
        "import sys; from login_relay.cli import COMMANDS, main\n"
        "try: main(['--help'])\n"
        "except SystemExit: assert not {'redis', 'litestar', 'httpx'} & sys.modules.keys()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "serve" in result.stdout
