"""Requests per second and latency: each endpoint compared with the floor, and the rival's two with ours."""

import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec

from bench.load.client import COMPLETE, INITIATE, POLL
from bench.load.servers import Server, floor, oidc_provider, relay, valkey, workers
from bench.load.sessions import REFRESH_TOKEN, Project, complete, create_project, initiate, new_settings
from bench.load.wrk import Answered, Load, wrk
from bench.rounds import interleaved, ratios, spread
from runtime.codes import POLLING_CODE_PREFIX
from runtime.settings import Settings

CONNECTIONS = 64
CODES = 1_000  # sessions that are polled in turn
FASTEST = {CONNECTIONS: 6_000, 1: 2_000}  # upper bound of completions per second, by connections: the codes to prepare
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}

Case = Callable[[], Answered]


def measure_throughput(*, rounds: int, seconds: int) -> dict[str, Any]:
    """Return the figures of the relay's endpoints and of the floor."""
    with valkey() as url:
        settings = new_settings(url)
        project = create_project(settings)
        with floor(url) as bare, relay(settings) as api, workers(settings):
            steady = {"floor": floor_load(bare.port)} | relay_loads(api, settings, project)
            cases: dict[str, Case] = {}
            for connections in (CONNECTIONS, 1):
                for name, load in steady.items():
                    cases[_name(name, connections)] = _steady(load, connections, seconds)
                for name, prepare in (("complete", completes), ("consume", consumes)):
                    cases[_name(name, connections)] = _fresh(
                        prepare, api, settings, project, connections=connections, seconds=seconds
                    )
            return _summed_up(interleaved(cases, rounds))


def measure_rival(*, rounds: int, seconds: int) -> dict[str, Any]:
    """Return the figures of the rival's two requests, of ours and of the floor."""
    with valkey() as url:
        settings = new_settings(url)
        project = create_project(settings)
        with floor(url) as bare, relay(settings) as api, oidc_provider(url) as rival:
            loads = {"floor": floor_load(bare.port)} | relay_loads(api, settings, project) | _rival_loads(rival)
            cases = {
                _name(name, connections): _steady(load, connections, seconds)
                for connections in (CONNECTIONS, 1)
                for name, load in loads.items()
            }
            return _summed_up(interleaved(cases, rounds))


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


def _rival_loads(rival: Server) -> dict[str, Load]:
    asked = urlencode({"client_id": "tool", "scope": "openid"})
    with httpx.Client(base_url=f"http://127.0.0.1:{rival.port}", trust_env=False) as http:
        codes = [
            http.post("/device/auth", content=asked, headers=FORM).raise_for_status().json()["device_code"]
            for _ in range(CODES)
        ]
    polls = [
        urlencode(
            {
                "client_id": "tool",
                "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
                "device_code": code,
            }
        )
        for code in codes
    ]
    return {
        "rival poll": Load(rival.port, "/token", FORM, polls, refused=True),
        "rival initiate": Load(rival.port, "/device/auth", FORM, [asked]),
    }


def _steady(load: Load, connections: int, seconds: int) -> Case:
    return lambda: wrk(load, connections=connections, seconds=seconds)


def _fresh(
    prepare: Callable[[Server, Settings, Project, int], Load],
    api: Server,
    settings: Settings,
    project: Project,
    *,
    connections: int,
    seconds: int,
) -> Case:
    def run() -> Answered:
        load = prepare(api, settings, project, FASTEST[connections] * seconds)
        return wrk(load, connections=connections, seconds=seconds)

    return run


def _name(name: str, connections: int) -> str:
    return f"{name} c{connections}"


def _summed_up(results: dict[str, list[Answered]]) -> dict[str, Any]:
    """Return for each case requests per second and latency, and their ratios to the floor at the same concurrency."""
    summed_up = {}
    for name, answers in results.items():
        base = results[f"floor c{name.rpartition(' c')[2]}"]
        summed_up[name] = {
            "per_second": spread(each.per_second for each in answers)._asdict(),
            "p50_ms": spread(each.p50_ms for each in answers)._asdict(),
            "p99_ms": spread(each.p99_ms for each in answers)._asdict(),
            "per_second_to_floor": ratios(*([a.per_second for a in each] for each in (answers, base)))._asdict(),
            "p50_to_floor": ratios(*([a.p50_ms for a in each] for each in (answers, base)))._asdict(),
        }
    for ours, rival in (("poll", "rival poll"), ("initiate", "rival initiate")):
        for connections in (CONNECTIONS, 1):
            if (name := _name(rival, connections)) in results:
                pair = results[_name(ours, connections)], results[name]
                to_rival = ratios(*([a.per_second for a in each] for each in pair))
                summed_up[_name(ours, connections)]["per_second_to_rival"] = to_rival._asdict()
    return summed_up


def _json(**fields: str) -> str:
    return msgspec.json.encode(fields).decode()
