"""The `login-relay` command: the table of its commands, and the message and exit code of every failure."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import click

from runtime.errors import LoginRelayError, SettingError


class Place(NamedTuple):
    """Where a command is, and its line in the help: `--help` imports no command."""

    module: str
    attribute: str
    line: str


COMMANDS = {
    "serve": Place("run.serve", "serve", "Run everything on this machine: a Redis of its own, workers and the API."),
    "api": Place("run.api", "api", "Serve the HTTP API."),
    "worker": Place("run.worker", "worker", "Decide the commands that the API records."),
    "login": Place("login", "login", "Log in through a browser and keep the refresh token."),
    "projects": Place("operate.projects", "projects", "Manage projects and their keys."),
    "keys": Place(
        "offline.keys", "keys", "Make, list and replace the master secrets that access tokens are signed with."
    ),
    "sessions": Place("operate.sessions", "sessions", "Look at sessions, and end pending ones."),
    "tokens": Place("operate.tokens", "tokens", "List and revoke refresh tokens, and log subjects out."),
    "events": Place("operate.events", "events", "Print what happened to sessions, in time order, over all partitions."),
    "dead-letters": Place(
        "operate.dead_letters", "dead_letters", "Look at, replay or drop entries that no worker could decide."
    ),
    "status": Place("operate.status", "status", "Show the partitions with their backlog, and the workers."),
    "top": Place(
        "operate.top", "top", "Show logins, their times, the backlog, the workers and the latest sessions, live."
    ),
    "doctor": Place(
        "operate.doctor",
        "doctor",
        "Check that Redis is set up for what the relay promises, and say what to type if not.",
    ),
    "health": Place("operate.health", "health", "Say whether a process of this machine works: exit code 0 yes, 1 no."),
    "admin-token": Place(
        "offline.admin_token", "admin_token", "Print an admin access token for projects, signed with a private key."
    ),
}
"""The commands, in the order of the help."""

INTERRUPTED = 130  # 128 + SIGINT, as shells count


class CommandLine(click.Group):
    """A group whose commands are imported on use, and whose failures are one line each."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import and return a command; None if the name is unknown."""
        if cmd_name not in COMMANDS:
            return None
        place = COMMANDS[cmd_name]
        command = getattr(import_module(f"login_relay.{place.module}"), place.attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - holds for every row of the table
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the commands with their lines."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.line) for name, place in COMMANDS.items()])

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> NoReturn:  # type: ignore[override] # noqa: ANN401 - click's; it always exits
        """Run and exit: 0 done, 1 failed, 2 wrong usage or setting, 130 interrupted."""
        extra["standalone_mode"] = False  # otherwise click would print the failures
        try:
            result = super().main(args, prog_name or "login-relay", **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(error.exit_code)
        except click.UsageError as error:
            hint = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
            _fail(error.format_message().rstrip(".") + hint, error.exit_code)
        except click.ClickException as error:
            _fail(error.format_message(), error.exit_code)
        except SettingError as error:
            _fail(str(error), 2)
        except LoginRelayError as error:
            _fail(str(error), 1)
        except click.Abort as error:
            sys.exit(INTERRUPTED if isinstance(error.__cause__, KeyboardInterrupt) else 1)
        sys.exit(result if isinstance(result, int) else 0)


def _fail(message: str, exit_code: int) -> NoReturn:
    click.echo(f"login-relay: {' '.join(message.split())}", err=True)
    sys.exit(exit_code)


@click.group(
    cls=CommandLine,
    epilog="Settings are environment variables, LOGIN_RELAY_…; the README lists them. Exit codes: 0 done, 1 failed, "
    "2 wrong usage or setting, or a port or folder in use. `login --help` lists those of `login`.",
)
@click.version_option(package_name="login-relay", message="%(prog)s %(version)s")
def main() -> None:
    """Log the users of command-line tools in through a browser.

    `login-relay serve` runs everything on this machine. For more, run any number of `login-relay api` and
    `login-relay worker` on one Redis.
    """
