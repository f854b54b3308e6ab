"""Whole logins, and the time from a backend's complete to the token received by a waiting tool."""

import asyncio
import time
from typing import Any

import uvloop

from bench.load.client import COMPLETE, INITIATE, POLL, Connection
from bench.load.servers import Server, relay, valkey, workers
from bench.load.sessions import REFRESH_TOKEN, Project, concurrently, create_project, new_settings
from bench.rounds import percentile, spread

WAITING = (1, 100, 1_000)
AT_ONCE = 64
HOLD = {"prefer": "wait=300"}
SETTLE = 1.0  # seconds for the last polls to be held


def measure_logins(*, rounds: int, logins: int) -> dict[str, Any]:
    """Return the times of logins one after the other, and the rate of many at once."""

    async def one(api: Server, project: Project) -> list[float]:
        async with Connection(api.port) as tool, Connection(api.port) as backend:
            return [await _login(tool, backend, project) for _ in range(logins // 10)]

    with valkey() as redis:
        settings = new_settings(redis.url)
        project = create_project(settings)
        with relay(settings) as api, workers(settings):
            log_in(api, project, logins)  # warms up
            latencies, rates = [], []
            for _ in range(rounds):
                latencies.append(percentile(uvloop.run(one(api, project)), 50) * 1000)
                rates.append(log_in(api, project, logins))
    return {"p50_ms": spread(latencies)._asdict(), "per_second": spread(rates)._asdict()}


def log_in(api: Server, project: Project, logins: int) -> float:
    """Log in `logins` times, 64 at once; return logins per second."""

    async def tool_and_backend(share: int) -> None:
        async with Connection(api.port) as tool, Connection(api.port) as backend:
            for _ in range(share):
                await _login(tool, backend, project)

    async def run() -> float:
        shares = [logins // AT_ONCE + (number < logins % AT_ONCE) for number in range(AT_ONCE)]
        started = time.perf_counter()
        await concurrently(tool_and_backend, shares, AT_ONCE)
        return logins / (time.perf_counter() - started)

    return uvloop.run(run())


async def _login(tool: Connection, backend: Connection, project: Project) -> float:
    """Log in (initiate, a pending poll, complete, the poll that gets the token) and return the seconds that it took."""
    started = time.perf_counter()
    session = (await tool.post(INITIATE, project.client, {})).fields
    code = {"polling_code": session["polling_code"]}
    waiting = await tool.post(POLL, project.client, code)
    completed = await backend.post(COMPLETE, project.server, _completion(session["login_code"]))
    done = await tool.post(POLL, project.client, code)
    said = waiting.fields["status"], completed.fields["success"], done.fields["status"]
    if said != ("waiting", True, "success"):
        message = f"a login went wrong: {said}"
        raise RuntimeError(message)
    return time.perf_counter() - started


def measure_time_to_token(*, rounds: int, tokens: int) -> dict[str, Any]:
    """Return the time to token by the number of polls held meanwhile. `tokens` are measured in each round."""
    with valkey() as redis:
        settings = new_settings(redis.url)
        project = create_project(settings)
        with relay(settings) as api, workers(settings):
            results: dict[str, Any] = {}
            for waiting in WAITING:
                times = uvloop.run(_times_to_token(api, project, waiting, rounds, tokens))
                results[str(waiting)] = {
                    "p50_ms": spread(percentile(each, 50) for each in times)._asdict(),
                    "p99_ms": spread(percentile(each, 99) for each in times)._asdict(),
                }
            return results


async def _times_to_token(api: Server, project: Project, waiting: int, rounds: int, tokens: int) -> list[list[float]]:
    """Return for each round the milliseconds from complete sent to token received."""
    tools = [Connection(api.port) for _ in range(waiting)]
    async with asyncio.TaskGroup() as group:
        for tool in tools:
            group.create_task(tool.__aenter__())

    async def hold(tool: Connection) -> str:
        session = (await tool.post(INITIATE, project.client, {})).fields
        tool.send(POLL, project.client | HOLD, {"polling_code": session["polling_code"]})
        login_code: str = session["login_code"]
        return login_code

    held = {tool: await hold(tool) for tool in tools}
    await asyncio.sleep(SETTLE)
    times: list[list[float]] = []
    async with Connection(api.port) as backend:
        for number in range(-1, rounds):
            took = []
            for tool in (tools * tokens)[:tokens]:
                started = time.perf_counter()
                backend.send(COMPLETE, project.server, _completion(held[tool]))
                token = await tool.receive()
                took.append((time.perf_counter() - started) * 1000)
                said = token.fields["status"], (await backend.receive()).fields["success"]
                if said != ("success", True):
                    message = f"a login went wrong: {said}"
                    raise RuntimeError(message)
                held[tool] = await hold(tool)
            if number >= 0:  # the first one warms up
                times.append(took)
    for tool in tools:
        await tool.__aexit__(None, None, None)
    return times


def _completion(login_code: str) -> dict[str, str]:
    return {"login_code": login_code, "refresh_token": REFRESH_TOKEN}
