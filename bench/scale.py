"""The cost of scale: memory per held poll and per live session, and rates among millions of live sessions."""

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import uvloop

from api.server.http1 import allow_open_files
from bench.cost import Cost, Done, Processes, cost_of, costs, measured
from bench.load.client import COMPLETE, INITIATE, POLL, Connection
from bench.load.holding import hold
from bench.load.loads import CONNECTIONS, poll_load
from bench.load.servers import Server, floor, relay, valkey, workers
from bench.load.sessions import (
    REFRESH_TOKEN,
    Project,
    concurrently,
    create_project,
    initiate,
    new_settings,
    populate,
    store,
)
from bench.load.wrk import Load
from bench.rounds import interleaved
from runtime.codes import login_code_digest
from runtime.settings import Settings
from statemachine.store.initiating import Initiated

POLLED = 50_000  # sessions at most that are polled in turn: more than fit the processor's caches
SPARE = 512 * 1024 * 1024  # bytes
MOST_PER_SESSION = 1_536  # bytes of Redis memory: a session with all its index entries
LOOK = 5.0  # seconds over which the CPU time of holding is measured


def measure_memory(*, polls: int, sessions: int) -> dict[str, Any]:
    """Return the API's memory per held poll and Redis' memory per pending session."""
    allow_open_files()
    with valkey() as redis:
        settings = new_settings(redis.url)
        project = create_project(settings)
        initiated = initiate(settings, project, max(polls, sessions))
        figures = uvloop.run(_redis_bytes(settings, project, initiated[:sessions]))
        with relay(settings) as api, floor(redis.url, "mechanical") as bare:
            figures |= uvloop.run(_kib_per_poll(api, bare, project, initiated[:polls]))
    return figures


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

    settings: Settings
    project: Project
    processes: Processes
    api: Server
    to_poll: Load
    to_complete: list[Initiated]
    created_per_second: float
    bytes_per_session: float


def measure_growth(live: Sequence[int], *, rounds: int, seconds: int, completes: int) -> dict[str, Any]:
    """Return rate and CPU time of polls, completes and initiates by the number of live sessions.

    Each number of sessions has a Valkey, an API and a worker of its own, so that the rounds can be interleaved.
    Initiates come last, because they add sessions; `completes` are made in each round.
    """
    with contextlib.ExitStack() as stack:
        levels = {str(count): _open(stack, count, (rounds + 1) * completes) for count in live}
        polls = {name: cost_of(level.to_poll, level.processes, seconds) for name, level in levels.items()}
        completions = {name: partial(_complete, level, completes) for name, level in levels.items()}
        initiates = {
            name: cost_of(Load(level.api.port, INITIATE, level.project.client, ["{}"]), level.processes, seconds)
            for name, level in levels.items()
        }
        results = {
            "polls": interleaved(polls, rounds),
            "completes": interleaved(completions, rounds),
            "initiates": interleaved(initiates, rounds),
        }
    least = str(live[0])
    figures: dict[str, Any] = {name: costs(result, {"least": least}) for name, result in results.items()}
    figures["levels"] = {
        name: {"created_per_second": level.created_per_second, "redis_bytes_per_session": level.bytes_per_session}
        for name, level in levels.items()
    }
    return figures


def _open(stack: contextlib.ExitStack, live: int, completes: int) -> _Level:
    redis = stack.enter_context(valkey({"appendonly": "no", "maxmemory": str(SPARE + MOST_PER_SESSION * live)}))
    settings = new_settings(redis.url)
    project = create_project(settings)
    empty = redis.used_bytes()
    started = time.perf_counter()
    own = populate(settings, project, live, min(live, POLLED + completes))
    rate = live / (time.perf_counter() - started)
    used = (redis.used_bytes() - empty) / live
    (worker,) = stack.enter_context(workers(settings))
    api = stack.enter_context(relay(settings))
    random.Random(0).shuffle(own)  # noqa: S311 - all ages in turn, and no secret
    to_poll = poll_load(api, project, [each.polling_code for each in own[:POLLED]])
    return _Level(settings, project, Processes(api, redis, worker), api, to_poll, own[POLLED:], rate, used)


def _complete(level: _Level, number: int) -> Cost:
    """Complete sessions of all ages, 64 at once; new ones if there are not as many."""
    sessions, level.to_complete[:] = level.to_complete[:number], level.to_complete[number:]
    sessions += initiate(level.settings, level.project, number - len(sessions))

    async def run() -> float:
        left = iter(sessions)

        async def backend(_number: int) -> None:
            async with Connection(level.api.port) as connection:
                for session in left:
                    body = {"login_code": session.login_code, "refresh_token": REFRESH_TOKEN}
                    _ = (await connection.post(COMPLETE, level.project.server, body)).fields

        started = time.perf_counter()
        await concurrently(backend, range(CONNECTIONS), CONNECTIONS)
        return number / (time.perf_counter() - started)

    return measured(lambda: Done(number, uvloop.run(run())), level.processes)
