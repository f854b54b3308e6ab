"""The cost of scale: memory per held poll and per live session, and the time of a login among a million sessions."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import uvloop

from api.server.http1 import allow_open_files
from bench.load.client import COMPLETE, INITIATE, POLL, Connection, Response
from bench.load.holding import hold
from bench.load.loads import CODES, CONNECTIONS, floor_load, poll_load
from bench.load.servers import Server, floor, relay, valkey, workers
from bench.load.sessions import REFRESH_TOKEN, Project, create_project, initiate, new_settings, store
from bench.load.wrk import wrk
from bench.rounds import interleaved, percentile, ratios, spread
from runtime.codes import login_code_digest
from runtime.settings import Settings
from statemachine.store.initiating import Initiated

LOOK = 5.0  # seconds over which the CPU time of holding is measured


def measure_memory(*, polls: int, sessions: int) -> dict[str, Any]:
    """Return the API's memory per held poll and Redis' memory per pending session."""
    allow_open_files()
    with valkey() as redis:
        settings = new_settings(redis.url)
        project = create_project(settings)
        initiated = initiate(settings, project, max(polls, sessions))
        measured = uvloop.run(_redis_bytes(settings, project, initiated[:sessions]))
        with relay(settings) as api, floor(redis.url) as bare:
            measured |= uvloop.run(_kib_per_poll(api, bare, project, initiated[:polls]))
    return measured


async def _kib_per_poll(api: Server, bare: Server, project: Project, sessions: Sequence[Initiated]) -> dict[str, Any]:
    headers = project.client | {"prefer": "wait=300"}
    bodies = [{"polling_code": session.polling_code} for session in sessions]
    for server, path in ((api, POLL), (bare, "/poll")):
        async with Connection(server.port) as warming:
            for body in bodies[:500]:
                await warming.post(path, project.client, body)
    async with contextlib.AsyncExitStack() as stack:
        of_api = await hold(stack, api, POLL, headers, bodies)
        async with Connection(api.port) as other:  # the API still answers while it holds the polls
            started = time.perf_counter()
            _ = (await other.post(POLL, project.client, bodies[0])).fields
            took = time.perf_counter() - started
        used = api.cpu_seconds()
        await asyncio.sleep(LOOK)
        used = api.cpu_seconds() - used
    async with contextlib.AsyncExitStack() as stack:
        of_floor = await hold(stack, bare, "/hold", headers, bodies)
    return {
        "held_polls": len(sessions),
        "kib_per_held_poll": of_api,
        "kib_per_held_request_of_the_floor": of_floor,
        "poll_while_holding_ms": took * 1000,
        "cpu_percent_while_holding": used / LOOK * 100,
    }


async def _redis_bytes(settings: Settings, project: Project, sessions: Sequence[Initiated]) -> dict[str, Any]:
    """Return the MEMORY USAGE of a session's keys, of its share in the index of deadlines, and of its event."""
    async with store(settings) as opened:
        keys, redis = opened.keys, opened.redis

        async def usage(key: str) -> int:
            used: int = await redis.execute_command("MEMORY USAGE", key, "SAMPLES", 0)
            return used

        of_sessions = [await usage(keys.session(each.session_id)) for each in sessions]
        of_logins = [await usage(keys.login(login_code_digest(project.id, each.login_code))) for each in sessions]
        live = await redis.zcard(keys.deadlines(0))
        index = await usage(keys.deadlines(0)) / live
        events = await usage(keys.events(0)) / await redis.xlen(keys.events(0))
    own = sum(of_sessions) / len(sessions) + sum(of_logins) / len(sessions) + index
    return {
        "redis_bytes_per_session": own,
        "of_which_session": sum(of_sessions) / len(sessions),
        "of_which_login_code": sum(of_logins) / len(sessions),
        "of_which_index_of_deadlines": index,
        "event_bytes": events,
    }


class _Level(NamedTuple):
    """A relay of its own with a number of live sessions."""

    api: Server
    floor: Server
    project: Project
    to_poll: list[Initiated]
    to_complete: list[Initiated]


def measure_growth(levels: Sequence[int], *, rounds: int, seconds: int, requests: int) -> dict[str, Any]:
    """Return the times of a poll, an initiate and a complete, by the number of live sessions.

    Each number of sessions has a Valkey, an API and a worker of its own, so that the rounds can be interleaved.
    """
    with contextlib.ExitStack() as stack:
        opened = {str(live): _open(stack, live, (rounds + 1) * requests) for live in levels}
        cases: dict[str, Callable[[], float]] = {}
        for name, level in opened.items():
            cases[f"floor {name}"] = _rate(level, seconds, poll=False)
            cases[f"poll {name}"] = _rate(level, seconds, poll=True)
            cases[f"initiate {name}"] = _latency(level, requests, _initiate_once)
            cases[f"complete {name}"] = _latency(level, requests, _complete_once)
        results = interleaved(cases, rounds)
    least = str(levels[0])
    measured: dict[str, Any] = {}
    for name in opened:
        measured[name] = {
            "polls_per_second": spread(results[f"poll {name}"])._asdict(),
            "initiate_p50_ms": spread(results[f"initiate {name}"])._asdict(),
            "complete_p50_ms": spread(results[f"complete {name}"])._asdict(),
        }
        for kind in ("floor", "poll", "initiate", "complete"):
            change = ratios(results[f"{kind} {name}"], results[f"{kind} {least}"])
            measured[name][f"{kind}_to_least"] = change._asdict()
    return measured


def _open(stack: contextlib.ExitStack, live: int, completes: int) -> _Level:
    redis = stack.enter_context(valkey())
    settings = new_settings(redis.url)
    project = create_project(settings)
    sessions = initiate(settings, project, live)
    stack.enter_context(workers(settings))
    api, bare = stack.enter_context(relay(settings)), stack.enter_context(floor(redis.url))
    return _Level(api, bare, project, sessions[completes:], sessions[:completes])


def _rate(level: _Level, seconds: int, *, poll: bool) -> Callable[[], float]:
    """Return a measurement of polls, or of the floor, per second. The polls cover sessions of all ages in turn."""
    codes = [each.polling_code for each in level.to_poll[:: max(1, len(level.to_poll) // CODES)]]
    load = poll_load(level.api, level.project, codes) if poll else floor_load(level.floor.port)
    return lambda: wrk(load, connections=CONNECTIONS, seconds=seconds).per_second


def _latency(
    level: _Level, requests: int, once: Callable[[Connection, _Level], Awaitable[Response]]
) -> Callable[[], float]:
    """Return a measurement of a request's median milliseconds, one at a time."""

    async def run() -> float:
        took = []
        async with Connection(level.api.port) as connection:
            for _ in range(requests):
                started = time.perf_counter()
                response = await once(connection, level)
                took.append((time.perf_counter() - started) * 1000)
                _ = response.fields  # raises if the answer is an error
        return percentile(took, 50)

    return lambda: uvloop.run(run())


async def _initiate_once(connection: Connection, level: _Level) -> Response:
    return await connection.post(INITIATE, level.project.client, {})


async def _complete_once(connection: Connection, level: _Level) -> Response:
    body = {"login_code": level.to_complete.pop().login_code, "refresh_token": REFRESH_TOKEN}
    return await connection.post(COMPLETE, level.project.server, body)
