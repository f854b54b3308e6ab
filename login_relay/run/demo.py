"""The `demo` project of `serve`: created on the first start, so that pasting two commands is enough to try a login."""

import os
import shlex
import shutil
import sys
from pathlib import Path

import msgspec

from api.server.listening import base_url
from login_relay.run.state_folder import read_private, write_private
from projects.errors import ProjectNameTakenError
from projects.project import KeyKind
from projects.store import Projects
from runtime.settings import Settings

NAME = "demo"
FILE = "demo-project.json"
HEADERS_FILE = "demo-backend.headers"
"""The headers of a backend, one per line. curl reads them from this file, so no command line shows the server key."""


class DemoProject(msgspec.Struct, frozen=True):
    """The demo project with its keys: the content of the file, in the format of `projects create --json`."""

    project_id: str
    name: str
    publishable_client_key: str
    secret_server_key: str
    super_secret_admin_key: str


async def demo_project(projects: Projects, folder: Path) -> DemoProject | None:
    """Return the demo project, which is created if necessary; None if it exists and its keys are not known here.

    Redis stores only digests of keys. So that the pasted commands also work after a restart, the keys of this one
    project are kept in the state folder, in files that only its owner can read.
    """
    demo = await _kept_or_made(projects, folder / FILE)
    if demo is not None:
        headers = {
            "x-stack-project-id": demo.project_id,
            "x-stack-secret-server-key": demo.secret_server_key,
            "content-type": "application/json",
        }
        lines = "".join(f"{name}: {value}\n" for name, value in headers.items())
        write_private(folder / HEADERS_FILE, lines.encode())
    return demo


async def _kept_or_made(projects: Projects, path: Path) -> DemoProject | None:
    kept = _read(path)
    if kept is not None:
        project, now = await projects.read(kept.project_id)
        if project is not None:
            is_current = all(project.keys[kind].matches(getattr(kept, kind), now) for kind in KeyKind)
            return kept if is_current else None
    try:
        project_id, keys = await projects.create(NAME, allow_client_complete=False)
    except ProjectNameTakenError:
        return None
    made = DemoProject(project_id, NAME, **{kind.value: key for kind, key in keys.items()})
    write_private(path, msgspec.json.format(msgspec.json.encode(made)) + b"\n")
    return made


def _read(path: Path) -> DemoProject | None:
    try:
        return msgspec.json.decode(read_private(path) or b"", type=DemoProject)
    except msgspec.DecodeError:
        return None


def what_to_paste(settings: Settings, folder: Path, demo: DemoProject | None) -> str:
    """Return the next steps for a person at a terminal. The text holds no secret: a journal or history may keep it."""
    url = base_url(settings.host, settings.port)
    command = _own_command()
    if demo is None:
        return f"""\
Ready at {url} (Ctrl-C stops it).

The keys of the project `{NAME}` differ from those in its file. Paste this into a second terminal, then start again:

  {command} projects rotate {NAME} --json > {shlex.quote(str(folder / FILE))}
"""
    return f"""\
Ready at {url} (Ctrl-C stops it). To try a login, paste into a second terminal:

  {command} login --server {url} --project {demo.project_id} \\
    --key {demo.publishable_client_key} --print-token

It shows a code and waits. Complete it as your backend would, from a third terminal, with that code:

  curl {url}/api/v1/auth/cli/complete \\
    -H @{shlex.quote(str(folder / HEADERS_FILE))} \\
    -d '{{"login_code": "XXXX-XXXX-XXXX"}}'

The project's secret keys are in {folder / FILE}.
"""


def _own_command() -> str:
    """Return the command that calls this `login-relay` from here: its name if PATH leads to it, otherwise its path."""
    path = Path(sys.argv[0])
    if path.name != "login-relay":
        return f"{shlex.quote(sys.executable)} -m login_relay"
    found = shutil.which("login-relay")
    if found and Path(found).resolve() == path.resolve():
        return "login-relay"
    return shlex.quote(min(str(path), os.path.relpath(path), key=len))
