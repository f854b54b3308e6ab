"""The metrics of `login-relay api`: all its processes count, its parent process serves the sums."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING

from runtime.settings import Settings

if TYPE_CHECKING:
    from runtime.metrics_server import MetricsServer

PREFIX = "login-relay-metrics-"
LOCK = "lock"


@contextlib.contextmanager
def metrics_of_processes(settings: Settings) -> Iterator["MetricsServer | None"]:
    """Listen for whoever scrapes, as long as the context lasts; None if no metrics are wanted.

    Enter it before the application is imported: prometheus_client looks for the folder that its processes share
    (files in shared memory) when it is imported.

    Raises:
        SettingError: the address that the settings name cannot be listened on.

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
        registry.register(Standing(settings))
        yield listen(settings, registry)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; the processes that are forked from this one hold it too."""
    with (folder / "lock.new").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / "lock.new").rename(folder / LOCK)  # there from its first moment as one that is held
        yield


def _remove_abandoned() -> None:
    """Remove the folders of processes that were killed: those whose lock nobody holds."""
    for path in Path(gettempdir()).glob(f"{PREFIX}*/{LOCK}"):
        with contextlib.suppress(OSError), path.open("rb") as lock:  # held, another user's, or gone
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent, ignore_errors=True)
