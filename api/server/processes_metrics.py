"""The metrics of `login-relay api`: each of its processes counts, and their parent serves the sums."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING

from runtime.redis.connections import command_client
from runtime.redis.keys import Keys
from runtime.settings import Settings

if TYPE_CHECKING:
    from runtime.metrics_server import MetricsServer

PREFIX = "login-relay-metrics-"
LOCK = "lock"


@contextlib.contextmanager
def metrics_of_processes(settings: Settings) -> Iterator["MetricsServer | None"]:
    """Yield a server that listens on the port of the metrics; None if metrics are off or no port is free.

    Enter the context before the application is imported: on import, prometheus_client looks for the folder that the
    processes share (files in shared memory). It is removed when the context ends.

    Raises:
        SettingError: the settings name an address or a port that cannot be listened on.

    """
    if settings.metrics_port == 0:
        yield None
        return
    _remove_abandoned()
    with TemporaryDirectory(prefix=PREFIX) as folder, _held(Path(folder)):
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        from prometheus_client import CollectorRegistry  # noqa: PLC0415 - see above
        from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415 - see above

        from runtime.metrics_server import listen  # noqa: PLC0415 - see above
        from statemachine.store.backlog_metrics import Standing  # noqa: PLC0415 - see above

        registry = CollectorRegistry()
        MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call] # it has no annotations
        connect = partial(command_client, settings, "login-relay:metrics")
        registry.register(Standing(connect, Keys(settings.prefix, settings.partitions)))
        yield listen(settings, registry)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder's lock. The processes forked from this one hold it too."""
    with (folder / "lock.new").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / "lock.new").rename(folder / LOCK)  # so that it never exists without being held
        yield


def _remove_abandoned() -> None:
    """Remove the folders of processes that were killed: no process holds their locks any more."""
    for path in Path(gettempdir()).glob(f"{PREFIX}*/{LOCK}"):
        with contextlib.suppress(OSError), path.open("rb") as lock:  # held, another user's, or gone
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent, ignore_errors=True)
