"""`login-relay login`: the client as a command, with the token in a private file."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Final, TextIO
from uuid import UUID

import click
import msgspec

import login_relay_client as client


class Terminated(BaseException):
    """SIGTERM came while the command waited."""


FAILURES: Final[dict[type[BaseException], tuple[str, int]]] = {
    client.LoginExpired: ("expired", 3),
    client.LoginUsed: ("used", 4),
    client.LoginRefused: ("refused", 5),
    client.ServerUnreachable: ("unreachable", 6),
    client.LoginDenied: ("denied", 7),
    KeyboardInterrupt: ("interrupted", 130),  # 128 + SIGINT, as in shells
    Terminated: ("terminated", 143),  # 128 + SIGTERM
}
"""For each way to fail: its `status` in the JSON report, and the exit code."""

EXIT_CODES: Final = "Exit codes: 0 logged in, 1 token file cannot be written, 2 wrong usage, {}.".format(
    ", ".join(f"{exit_code} {status}" for status, exit_code in FAILURES.values())
)


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `--json` prints. A later version may add fields, and removes none."""

    status: str
    message: str
    session_id: str | None = None
    refresh_token: str | None = None
    token_file: str | None = None


@click.command(epilog=EXIT_CODES)
@click.option("--server", required=True, metavar="URL", help="The relay, such as https://login.example.com.")
@click.option("--project", required=True, type=click.UUID, metavar="ID", help="The project to log in to.")
@click.option(
    "--key",
    required=True,
    metavar="KEY",
    envvar="LOGIN_RELAY_PUBLISHABLE_KEY",
    show_envvar=True,
    help="The project's publishable client key, pck_….",
)
@click.option("--link", metavar="TEMPLATE", help="URL of the page where the login is approved; contains {login_code}.")
@click.option("--print-token", is_flag=True, help="Print the refresh token on standard output.")
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the refresh token to this file, which only you can read. Default, without --print-token: "
    "ID.token in your configuration folder.",
)
@click.option(
    "--timeout", type=click.FloatRange(1, 86400), metavar="S", help="Seconds in which the login can be approved."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@click.option(
    "--open/--no-open",
    "open_link",
    default=None,
    help="Open the link in a browser. Default: only in a terminal on a desktop. Other users of the machine "
    "can then see the link in its list of processes.",
)
@click.option("--allow-insecure", is_flag=True, help="Accept an http:// server on another machine.")
@click.option(
    "--allow-unbound",
    is_flag=True,
    help="Log in even if the server refuses to bind the login to this command (code_challenge). "
    "Anyone who learns the polling code can then take the token.",
)
def login(  # noqa: PLR0913 - one parameter per option
    *,
    server: str,
    project: UUID,
    key: str,
    link: str | None,
    print_token: bool,
    token_file: Path | None,
    timeout: float | None,
    as_json: bool,
    open_link: bool | None,
    allow_insecure: bool,
    allow_unbound: bool,
) -> None:
    """Log in through a browser and keep the refresh token.

    The login code and the link are printed on standard error. Ctrl-C and SIGTERM cancel the login.
    """
    try:
        request = client.LoginRequest(
            server=server,
            project_id=str(project),
            publishable_client_key=key,
            confirm_url=link,
            expires_in=None if timeout is None else timedelta(seconds=timeout),
            client_name="login-relay",
            client_version=version("login-relay"),
            allow_insecure=allow_insecure,
            allow_unbound=allow_unbound,
        )
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from None
    if token_file is None and not print_token:
        token_file = Path(click.get_app_dir("login-relay"), f"{project}.token")

    session_id = None

    def show(prompt: client.Prompt) -> None:
        nonlocal session_id
        session_id = prompt.session_id
        click.echo(_invitation(prompt), err=True)
        if prompt.link and (_on_a_desktop() if open_link is None else open_link):
            _open_in_browser(prompt.link)

    try:
        with _sigterm_raised():
            session = _log_in(request, show, token_file)
    except tuple(FAILURES) as error:
        status, exit_code = FAILURES[type(error)]
        report = Report(status, str(error) or f"{status.capitalize()}.", session_id)
    else:
        exit_code = 0
        report = Report(
            "success",
            f"Logged in. The refresh token is in {token_file}." if token_file else "Logged in.",
            session.session_id,
            session.refresh_token if print_token else None,
            str(token_file) if token_file else None,
        )
    click.echo(report.message, err=True)
    if as_json:
        click.echo(msgspec.json.encode(report))
    elif report.refresh_token:
        click.echo(report.refresh_token)
    sys.exit(exit_code)


@contextlib.contextmanager
def _sigterm_raised() -> Iterator[None]:
    """Raise `Terminated` in the main thread on SIGTERM, while the block runs."""

    def terminate(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _log_in(
    request: client.LoginRequest, show: Callable[[client.Prompt], None], token_file: Path | None
) -> client.Login:
    if token_file is None:
        return client.login(request, show)
    try:
        with _private_file(token_file) as file:
            session = client.login(request, show)
            file.write(session.refresh_token)
    except OSError as error:  # of the file; those of the network are LoginErrors
        raise click.ClickException(f"{token_file}: {error.strerror}") from None
    return session


def _invitation(prompt: client.Prompt) -> str:
    seconds = round(prompt.expires_in.total_seconds())
    time = f"{seconds} seconds" if seconds < 120 else f"{round(seconds / 60)} minutes"  # noqa: PLR2004 - 2 minutes
    page = f"Open  {prompt.link}\nand check that it shows" if prompt.link else "To log in, approve"
    return f"{page} the code  {prompt.login_code}\nWaiting for up to {time} …"


@contextlib.contextmanager
def _private_file(path: Path) -> Iterator[TextIO]:
    """Yield a file that only its owner can read. It is renamed to `path` if the block raises nothing.

    It is created before the login begins, so that a folder that is not writable loses no token. It always is a new
    file: a process that has the old one open cannot read the new token.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink()
        raise


def _on_a_desktop() -> bool:
    """Return whether a browser would open on the screen of the person who sees this terminal."""
    has_display = sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    is_remote = "SSH_CONNECTION" in os.environ
    return bool(has_display) and not is_remote and sys.stdout.isatty() and sys.stderr.isatty()


def _open_in_browser(link: str) -> None:
    """Try to open it, in another process: some browsers block, or write to the terminal."""
    with contextlib.suppress(OSError):
        subprocess.Popen(  # noqa: S603 - no shell; the link comes from the user's own template
            [sys.executable, "-m", "webbrowser", link],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
