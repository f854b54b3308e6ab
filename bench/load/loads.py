"""Requests to the relay and to the floors, as loads for `wrk`."""

import uuid

import msgspec

from bench.load.client import COMPLETE, INITIATE, POLL
from bench.load.servers import Server
from bench.load.sessions import REFRESH_TOKEN, Project, complete, initiate
from bench.load.wrk import Load
from runtime.codes import POLLING_CODE_PREFIX
from runtime.settings import Settings

CONNECTIONS = 64
CODES = 1_000  # sessions that are polled in turn
FASTEST = {CONNECTIONS: 6_000, 1: 2_000}  # upper bound of completions per second, by connections: the codes to prepare
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


def floor_load(port: int) -> Load:
    """Return requests for the floor, whose bodies are as large as those of polls."""
    return Load(
        port, "/poll", JSON, [_json(polling_code=f"{POLLING_CODE_PREFIX}{uuid.uuid4().hex:x<58}") for _ in range(CODES)]
    )


def relay_loads(api: Server, settings: Settings, project: Project) -> dict[str, Load]:
    """Return the requests that can be repeated: polls of pending sessions, and initiates."""
    return {
        "poll": poll_load(api, project, [each.polling_code for each in initiate(settings, project, CODES)]),
        "initiate": Load(api.port, INITIATE, project.client, ["{}"]),
    }


def poll_load(api: Server, project: Project, polling_codes: list[str]) -> Load:
    """Return a load of polls."""
    return Load(api.port, POLL, project.client, [_json(polling_code=code) for code in polling_codes])


def completes(api: Server, settings: Settings, project: Project, count: int) -> Load:
    """Return completions of pending sessions, each for one use."""
    bodies = [
        _json(login_code=session.login_code, refresh_token=REFRESH_TOKEN)
        for session in initiate(settings, project, count)
    ]
    return Load(api.port, COMPLETE, project.server, bodies)


def consumes(api: Server, settings: Settings, project: Project, count: int) -> Load:
    """Return polls of completed sessions, each for one use."""
    sessions = initiate(settings, project, count)
    complete(settings, project, sessions)
    return poll_load(api, project, [session.polling_code for session in sessions])


def _json(**fields: str) -> str:
    return msgspec.json.encode(fields).decode()
