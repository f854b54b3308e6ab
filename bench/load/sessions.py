"""Sessions to measure with, created by the relay's own code: a project, and any number of sessions in any state."""

import asyncio
import itertools
import multiprocessing
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import NamedTuple, TypeVar
from unittest import mock

import uvloop
from redis.asyncio import Redis

from projects.budgets import InitiationLimits
from projects.project import KeyKind
from projects.store import Projects
from runtime.redis.connections import command_client
from runtime.redis.keys import Keys
from runtime.settings import Settings
from statemachine.commands import CompleteSession
from statemachine.sealing import public_key, seal
from statemachine.session import ClientFacts
from statemachine.store import initiating
from statemachine.store.command_stream import CommandStream
from statemachine.store.initiating import Initiated, Initiations
from statemachine.store.reading import Sessions
from statemachine.store.retention import Retention

FACTS = ClientFacts("acme-cli", "3.14.1", "laptop.example")
REFRESH_TOKEN = "x" * 400  # about the size of a signed JWT
LIFETIME_MS = 86_400_000  # every session outlives the run
CONCURRENCY = 128
MANY = 10_000  # from this number on, two processes share the work
BACKLOG_LIMIT = 1_000_000
SHARED_KEYS = 64
FIRST_ADDRESS = int(ip_address("10.0.0.0"))
NO_LIMIT = 1_000_000_000  # one address and one project stand for all tools

T = TypeVar("T")
V = TypeVar("V")


class Project(NamedTuple):
    """A project, and the headers that its tools and its backend send."""

    id: str
    client: dict[str, str]
    server: dict[str, str]


class Store(NamedTuple):
    """The relay's own access to its sessions."""

    redis: Redis
    keys: Keys
    initiations: Initiations
    sessions: Sessions
    stream: CommandStream


def new_settings(redis_url: str) -> Settings:
    """Return the defaults with a prefix of their own. Polls are held for five minutes, and no budget is used up."""
    return Settings(
        redis_url=redis_url,
        prefix=f"bench-{uuid.uuid4().hex[:8]}",
        long_poll_max_s=300,
        initiations_per_address=NO_LIMIT,
        initiations_per_project=NO_LIMIT,
        live_sessions_per_project=NO_LIMIT,
        live_sessions_per_address=NO_LIMIT,
    )


@asynccontextmanager
async def store(settings: Settings) -> AsyncIterator[Store]:
    """Open the relay's store and yield it."""
    redis = command_client(settings, "login-relay:bench")
    keys = Keys(settings.prefix, settings.partitions)
    try:
        limits = InitiationLimits(settings.budget_window_ms, NO_LIMIT, NO_LIMIT, NO_LIMIT, NO_LIMIT)
        retention = Retention(settings.retention_ms, settings.abandoned_retention_ms, settings.events_max)
        initiations = Initiations(redis, keys, limits, retention, pickup_window_ms=settings.pickup_window_ms)
        yield Store(redis, keys, initiations, Sessions(redis, keys), CommandStream(redis, keys))
    finally:
        await redis.aclose()


def create_project(settings: Settings) -> Project:
    """Create a project and return it."""

    async def create() -> Project:
        async with store(settings) as opened:
            id_, keys = await Projects(opened.redis, opened.keys).create("bench", allow_client_complete=False)
        shared = {"content-type": "application/json", "x-stack-project-id": id_}
        client_key, server_key = keys[KeyKind.PUBLISHABLE_CLIENT], keys[KeyKind.SECRET_SERVER]
        return Project(
            id_,
            shared | {"x-stack-access-type": "client", "x-stack-publishable-client-key": client_key},
            shared | {"x-stack-access-type": "server", "x-stack-secret-server-key": server_key},
        )

    return uvloop.run(create())


def initiate(settings: Settings, project: Project, count: int) -> list[Initiated]:
    """Initiate sessions and return them."""
    return _shared_out(_initiate, settings, project, count)


def populate(settings: Settings, project: Project, count: int, own_keys: int) -> list[Initiated]:
    """Initiate sessions; return about `own_keys` of them, of all ages: only these can be polled to their end.

    The others take their sealing keys from a few key pairs in turn, because deriving a key pair is most of what an
    initiate costs a Python process. They belong to other projects and client addresses: one project may not have so
    many. Everything else is the relay's own doing, so Redis holds what it always does.
    """
    return _shared_out(_populate, settings, project, count, count // own_keys)


def _shared_out(
    do: Callable[..., list[Initiated]], settings: Settings, project: Project, count: int, *more: int
) -> list[Initiated]:
    """Initiate in this process or, if they are many, in two."""
    if count < MANY:
        return do(settings, project.id, count, *more)
    shares = [count // 2, count - count // 2]
    with multiprocessing.get_context("spawn").Pool(len(shares)) as pool:
        first, second = pool.starmap(do, [(settings, project.id, share, *more) for share in shares])
    return first + second


def _initiate(settings: Settings, project_id: str, count: int) -> list[Initiated]:
    async def run() -> list[Initiated]:
        async with store(settings) as opened:
            return await concurrently(
                lambda _: opened.initiations.initiate(project_id, FACTS, LIFETIME_MS), range(count)
            )

    return uvloop.run(run())


def _populate(settings: Settings, project_id: str, count: int, each: int) -> list[Initiated]:
    """Initiate sessions; one in `each` is of the project and has a key pair of its own.

    The others are of as many projects and client addresses as the default limits of live sessions require.
    """
    defaults = Settings()
    shared = itertools.cycle([public_key(f"shared {number}") for number in range(SHARED_KEYS)])
    projects = [str(uuid.uuid4()) for _ in range(count // defaults.live_sessions_per_project + 1)]
    addresses = count // defaults.live_sessions_per_address + 1
    is_own = False

    def key_of(polling_code: str) -> bytes:
        return public_key(polling_code) if is_own else next(shared)

    async def run() -> list[Initiated]:
        async with store(settings) as opened:
            initiations = opened.initiations
            returned: list[Initiated] = []

            async def one(number: int) -> None:
                nonlocal is_own
                is_own = number % each == 0  # nothing else runs until the key was made
                if is_own:
                    returned.append(await initiations.initiate(project_id, FACTS, LIFETIME_MS))
                    return
                address = str(ip_address(FIRST_ADDRESS + number % addresses))
                await initiations.initiate(projects[number % len(projects)], FACTS, LIFETIME_MS, address=address)

            await concurrently(one, range(count))
            return returned

    with mock.patch.object(initiating, "public_key", key_of):
        return uvloop.run(run())


def complete(settings: Settings, project: Project, initiated: Sequence[Initiated]) -> None:
    """Record completions as the API would, and let a running worker decide them."""

    async def run() -> None:
        async with store(settings) as opened:
            await opened.stream.ensure_groups()

            async def enqueue(session: Initiated) -> None:
                key = public_key(session.polling_code)
                sealed = seal(REFRESH_TOKEN, key, project.id, session.session_id)
                command = CompleteSession(uuid.uuid4().hex, session.session_id, "nobody", sealed)
                await opened.stream.enqueue(command, backlog_limit=BACKLOG_LIMIT, outcome_ms=settings.replay_window_ms)

            await concurrently(enqueue, initiated)
            await until_decided(opened)

    uvloop.run(run())


async def until_decided(opened: Store) -> None:
    """Wait until the stream of commands is empty."""
    async with asyncio.timeout(120):
        while await opened.redis.xlen(opened.keys.commands(0)):
            await asyncio.sleep(0.005)


async def concurrently(do: Callable[[T], Awaitable[V]], work: Iterable[T], concurrency: int = CONCURRENCY) -> list[V]:
    """Do the work, a part of it at a time; return the results in no particular order."""
    left = iter(work)
    results: list[V] = []

    async def some() -> None:
        results.extend([await do(each) for each in left])

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(some())
    return results
