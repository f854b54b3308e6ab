"""The worker alone: transitions per second while workers drain a backlog."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
import uvloop

from bench.load.servers import valkey, workers
from bench.load.sessions import (
    REFRESH_TOKEN,
    Project,
    Store,
    create_project,
    initiate,
    new_settings,
    store,
    until_decided,
)
from bench.rounds import interleaved, spread
from runtime.settings import Settings
from statemachine.commands import Command, CompleteSession, ConsumeSession, encode_command
from statemachine.lifecycle import State
from statemachine.sealing import public_key, seal
from statemachine.session import Session
from statemachine.store.reading import DECIDED_ON

WORKERS = (1, 2, 4)
PATIENCE_MS = 600_000  # the polls of this backlog never give up


def measure_drain(*, rounds: int, sessions: int) -> dict[str, Any]:
    """Return transitions per second by number of workers; every session is completed, then consumed."""
    with valkey() as redis:
        settings = new_settings(redis.url)
        project = create_project(settings)
        cases = {str(count): lambda count=count: _drain(settings, project, count, sessions) for count in WORKERS}
        return {count: spread(rates)._asdict() for count, rates in interleaved(cases, rounds).items()}


def _drain(settings: Settings, project: Project, count: int, sessions: int) -> float:
    """Return transitions per second."""
    ids = [session.session_id for session in initiate(settings, project, sessions)]
    sealed = seal(REFRESH_TOKEN, public_key("any"), project.id, "any")  # workers do not open it
    completes = [CompleteSession(uuid.uuid4().hex, each, "nobody", sealed) for each in ids]
    consumes = [ConsumeSession(uuid.uuid4().hex, each, "nobody", PATIENCE_MS) for each in ids]
    with workers(settings, count):
        return uvloop.run(_run(settings, count, (completes, consumes)))


async def _run(settings: Settings, count: int, backlogs: Sequence[Sequence[Command]]) -> float:
    async with store(settings) as opened:
        await opened.stream.ensure_groups()
        async with asyncio.timeout(30):
            while len(await opened.stream.consumers(0)) < count:  # a consumer exists once its worker has read
                await asyncio.sleep(0.05)
        seconds = 0.0
        for backlog in backlogs:
            await _record_at_once(opened, backlog)
            started = time.perf_counter()
            await until_decided(opened)
            seconds += time.perf_counter() - started
        sessions = await opened.sessions.load([command.session_id for command in backlogs[0]])
        if any(not isinstance(each, Session) or each.state is not State.CONSUMED for each in sessions.values()):
            message = "not every session was completed and consumed"
            raise RuntimeError(message)
        return sum(map(len, backlogs)) / seconds


async def _record_at_once(opened: Store, commands: Sequence[Command]) -> None:
    """Record commands as `enqueue.lua` does, each with its session, but all in one transaction."""
    async with opened.redis.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command("HMGET", opened.keys.session(command.session_id), *DECIDED_ON)
        found: list[list[bytes | None]] = await pipeline.execute()
    async with opened.redis.pipeline(transaction=True) as pipeline:
        for command, values in zip(commands, found, strict=True):
            session = msgspec.json.encode([value.decode() if value else "" for value in values])
            fields = ("command", encode_command(command), "session", session)
            pipeline.execute_command("XADD", opened.keys.commands(0), "*", *fields)
        await pipeline.execute()
