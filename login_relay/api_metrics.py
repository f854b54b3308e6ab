"""The metrics of `login-relay api`: all its processes count, its parent process serves the sums."""

import contextlib
import os
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from statemachine.settings import Settings

if TYPE_CHECKING:
    from statemachine.metrics import MetricsServer


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
    with TemporaryDirectory(prefix="login-relay-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        from prometheus_client import CollectorRegistry  # noqa: PLC0415 - see above
        from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415 - see above

        from statemachine.metrics import listen  # noqa: PLC0415 - see above

        registry = CollectorRegistry()
        MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call] # it has no annotations
        yield listen(settings, registry)
