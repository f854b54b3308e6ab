"""`login-relay serve`: runs the embedded server, workers and the API as children of one process."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import httpx
import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from api.server.listening import base_url, check_listen_address
from login_relay.run.demo import demo_project, what_to_paste
from login_relay.run.embedded import embedded_server
from login_relay.run.keys_file import made_keys_file
from login_relay.run.options import host_option, port_option
from login_relay.run.state_folder import make_state_folder
from projects.store import Projects
from runtime.errors import LoginRelayError
from runtime.master_secrets import MasterSecretsFile
from runtime.redis.connections import command_client, given_redis_url, unavailable
from runtime.redis.keys import Keys
from runtime.settings import Settings, is_public_url, load_settings, variable
from statemachine.store.workers import read_workers

READY_TIMEOUT = 60.0  # seconds; it usually takes two, on a busy machine longer
READY_PERIOD = 0.1  # seconds between two checks
KILL_AFTER = 2.0  # seconds after its grace has passed; then a child is killed
CANCEL_PERIOD = 0.2  # seconds
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ChildError(LoginRelayError):
    """A child process ended by itself or did not become ready in time."""


class Child(NamedTuple):
    """A process that `serve` has started."""

    name: str
    process: asyncio.subprocess.Process


@click.command()
@host_option
@port_option
@click.option(
    "--workers", type=click.IntRange(1, 64), metavar="N", default=1, show_default=True, help="Worker processes."
)
def serve(host: str | None, port: int | None, workers: int) -> None:
    """Run everything on this machine: a Redis of its own, workers and the API.

    Without LOGIN_RELAY_REDIS_URL an embedded Valkey keeps its data in LOGIN_RELAY_STATE_DIR. Ctrl-C stops all of it.
    """
    settings = load_settings(os.environ)
    settings = msgspec.structs.replace(
        settings, redis_url=given_redis_url(settings), host=host or settings.host, port=port or settings.port
    )
    _check(settings)
    folder = make_state_folder(settings)
    settings = msgspec.structs.replace(
        settings, keys_file=settings.keys_file or str(made_keys_file(folder)), public_url=_public_url(settings)
    )
    asyncio.run(_until_signalled(settings, folder, workers))


def _check(settings: Settings) -> None:
    """Raise the SettingErrors of the children before anything is created or started."""
    if settings.redis_url is not None:
        _ = command_client(settings, "login-relay:serve")
    if settings.admin_jwks_file is not None:
        from api.stack.admin_tokens import AdminTokens  # noqa: PLC0415 - it imports the web framework

        AdminTokens.from_settings(settings)
    MasterSecretsFile.from_settings(settings)
    check_listen_address(settings.host, settings.port)


def _public_url(settings: Settings) -> str | None:
    """Return the URL that the settings name, or that of this machine alone; None if the API listens for others too."""
    own = base_url(settings.host, settings.port)
    return settings.public_url or (own if is_public_url(own) else None)


async def _until_signalled(settings: Settings, folder: Path, workers: int) -> None:
    loop = asyncio.get_running_loop()
    is_unwinding = asyncio.Event()
    task = asyncio.create_task(_serve(settings, folder, workers, is_unwinding))

    def stop() -> None:
        # Not during the orderly stop, which a second Ctrl-C must not interrupt. Until then repeatedly: redis-py sends
        # inside `asyncio.wait_for`, which in Python 3.11 drops a cancellation that arrives just as the sending ends.
        if not is_unwinding.is_set():
            task.cancel()
            loop.call_later(CANCEL_PERIOD, stop)

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _serve(settings: Settings, folder: Path, workers: int, is_unwinding: asyncio.Event) -> None:
    # The stack leaves in reverse order: the API stops before the workers, and the workers before their Redis.
    async with contextlib.AsyncExitStack() as stack:
        try:
            await _run(settings, folder, workers, stack)
        finally:
            is_unwinding.set()


async def _run(settings: Settings, folder: Path, workers: int, stack: contextlib.AsyncExitStack) -> None:
    children: list[Child] = []
    if settings.redis_url is None:
        server = await stack.enter_async_context(embedded_server(folder, settings.redis_memory_mb))
        settings = msgspec.structs.replace(settings, redis_url=server.url)
        children.append(Child("Valkey", server.process))
    redis = command_client(settings, "login-relay:serve")
    stack.push_async_callback(redis.aclose)
    keys = Keys(settings.prefix, settings.partitions)
    try:
        demo = await demo_project(Projects(redis, keys), folder)
    except RedisError as error:
        raise unavailable(error) from None
    working = await stack.enter_async_context(_children(["worker"] * workers, settings))
    children += working
    children += await stack.enter_async_context(_children(["api"], settings))

    ended = asyncio.create_task(_until_one_ends(children))
    ready = asyncio.create_task(_until_ready(settings, redis, keys, {child.process.pid for child in working}))
    try:
        await asyncio.wait({ended, ready}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            await ready
            click.echo(what_to_paste(settings, folder, demo))
        await ended
    finally:
        ended.cancel()
        ready.cancel()


@contextlib.asynccontextmanager
async def _children(names: Sequence[str], settings: Settings) -> AsyncIterator[list[Child]]:
    """Run `login-relay NAME` for each name for the duration of the context, then stop all of them at once."""
    # Settings are passed in the environment, which other users cannot see: a Redis URL may hold a password.
    environment = {
        variable("log_level"): "warning",  # leaves the terminal to the commands to paste
        **os.environ,
        variable("redis_url"): settings.redis_url or "",
        variable("host"): settings.host,
        variable("port"): str(settings.port),
        variable("public_url"): settings.public_url or "",
        variable("keys_file"): settings.keys_file or "",
    }
    children: list[Child] = []
    try:
        for name in names:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "login_relay", name, "--until-stdin-closes"),
                stdin=asyncio.subprocess.PIPE,  # the lifeline
                env=environment,
                start_new_session=True,  # Ctrl-C in a terminal is for `serve` alone
            )
            children.append(Child(name, process))
        yield children
    finally:
        grace = settings.shutdown_grace_ms / 1000 + KILL_AFTER
        await asyncio.gather(*(_stop(child.process, grace) for child in children))


async def _stop(process: asyncio.subprocess.Process, grace: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), grace)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # with its own children, which may have outlived it
    await process.wait()


async def _until_one_ends(children: Sequence[Child]) -> None:
    """Wait until a child ends, which is always a failure.

    Raises:
        ChildError: always. The message says which child ended, and how.

    """
    waiting = {asyncio.create_task(child.process.wait()): child for child in children}
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    ended = done.pop()
    code = ended.result()
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    message = f"{waiting[ended].name} (pid {waiting[ended].process.pid}) {how}; stopped the rest"
    raise ChildError(message)


async def _until_ready(settings: Settings, redis: Redis, keys: Keys, worker_pids: set[int]) -> None:
    """Wait until the API can serve a request and every worker has sent a heartbeat.

    Raises:
        ChildError: they are not ready in time.

    """
    url = f"{base_url(settings.host, settings.port)}/health/ready"
    host = socket.gethostname()
    try:
        async with asyncio.timeout(READY_TIMEOUT), httpx.AsyncClient(trust_env=False) as http:
            while True:
                with contextlib.suppress(httpx.HTTPError, RedisError):
                    alive = {worker.pid for worker in await read_workers(redis, keys) if worker.host == host}
                    if worker_pids <= alive and (await http.get(url)).is_success:
                        return
                await asyncio.sleep(READY_PERIOD)
    except TimeoutError:
        message = f"not ready after {READY_TIMEOUT:.0f} seconds"
        raise ChildError(message) from None
