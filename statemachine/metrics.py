"""`/metrics`: what a process has counted and how the commands stand, for Prometheus. On a port of its own.

The API's port faces the internet; this one is for whoever scrapes, and listens on loopback unless told otherwise.
"""

import asyncio
import os
import socket
from collections.abc import Iterator
from socketserver import TCPServer, ThreadingMixIn
from threading import Lock, Thread

import structlog
from prometheus_client import CollectorRegistry, Counter, MetricsHandler, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from statemachine.connections import CONNECTION_LOST, command_client
from statemachine.errors import SettingError
from statemachine.keys import Keys
from statemachine.settings import Settings, variable
from statemachine.stream import Backlog, CommandStream

PATH = "/metrics"
PORTS = range(9464, 9564)
"""Where a process looks for a free port if none is named: several on one machine then need no settings."""
SCRAPE_TIMEOUT = 10.0  # seconds; Prometheus' own

GAUGES = {
    "login_relay_backlog_entries": "Commands that no worker has decided yet.",
    "login_relay_pending_entries": "Those of them that a worker has read (XPENDING).",
    "login_relay_oldest_unread_seconds": "Age of the oldest command that no worker has read; 0 if there is none.",
    "login_relay_oldest_pending_seconds": "Age of the oldest command that was read only; 0 if there is none.",
    "login_relay_dead_letter_entries": "Dead letters that are kept.",
}
REDIS_UP = "login_relay_redis_up"

RECONNECTS = Counter(
    "login_relay_reconnects", "Interruptions of a connection to Redis, by what uses it and why.", ["loop", "reason"]
)

disable_created_metrics()  # type: ignore[no-untyped-call] # one more series for each counter, that nobody asks for

_log = structlog.get_logger("metrics")


class Standing(Collector):
    """How the commands stand, read from Redis at each scrape.

    Every process tells it, so that it is known when no worker runs: take the maximum over processes.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._one_at_a_time = Lock()  # or a fast scraper would open a connection per request

    def collect(self) -> Iterator[Metric]:
        """Read, and yield one gauge each; without Redis only that it is away."""
        try:
            with self._one_at_a_time:
                # A connection and an event loop of its own: a process that is stuck can still be watched.
                backlogs = asyncio.run(_read(self._settings))
        except (*CONNECTION_LOST, RedisError):
            yield GaugeMetricFamily(REDIS_UP, "Whether this process reached Redis just now.", 0)
            return
        yield GaugeMetricFamily(REDIS_UP, "Whether this process reached Redis just now.", 1)
        for (name, text), values in zip(GAUGES.items(), zip(*map(_values, backlogs), strict=True), strict=True):
            gauge = GaugeMetricFamily(name, text, labels=["partition"])
            for partition, value in enumerate(values):
                gauge.add_metric([str(partition)], value)
            yield gauge


def _values(backlog: Backlog) -> tuple[float, ...]:
    return (
        backlog.entries,
        backlog.pending,
        (backlog.oldest_unread_ms or 0) / 1000,
        (backlog.oldest_pending_ms or 0) / 1000,
        backlog.dead_letters,
    )


async def _read(settings: Settings) -> list[Backlog]:
    keys = Keys(settings.prefix, settings.partitions)
    redis = command_client(settings, "login-relay:metrics")
    try:
        stream = CommandStream(redis, keys)
        return [await stream.backlog(partition) for partition in keys.partitions]
    finally:
        await redis.aclose()


class MetricsServer(ThreadingMixIn, TCPServer):
    """Serves `/metrics` from threads of its own; `listen` makes one."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, family: int, address: tuple[str, int], registry: CollectorRegistry) -> None:
        self.address_family = family

        class Handler(MetricsHandler):
            timeout = SCRAPE_TIMEOUT  # of a client that does not speak

            def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
                if self.path.partition("?")[0] == PATH:
                    super().do_GET()
                else:
                    self.send_error(404)

        Handler.registry = registry
        super().__init__(address, Handler)
        os.register_at_fork(after_in_child=self.socket.close)  # a forked API process must not hold the port

    @property
    def url(self) -> str:
        """Return where the metrics are."""
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}{PATH}" if ":" in str(host) else f"http://{host!s}:{port}{PATH}"

    def start(self) -> None:
        """Serve until the process ends."""
        Thread(target=self.serve_forever, name="metrics", daemon=True).start()
        _log.info("metrics", url=self.url)


def listen(settings: Settings, registry: CollectorRegistry) -> MetricsServer | None:
    """Return a server that has its port and does not serve yet; None if no metrics are wanted or no port is free.

    Raises:
        SettingError: the settings name an address that cannot be listened on.

    """
    host, named = settings.metrics_host, settings.metrics_port
    if named == 0:
        return None
    registry.register(Standing(settings))
    for port in PORTS if named is None else [named]:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            return MetricsServer(family, (str(address[0]), port), registry)
        except OSError as error:
            if named is not None or isinstance(error, socket.gaierror):
                setting = "metrics_host" if isinstance(error, socket.gaierror) else "metrics_port"
                message = f"{variable(setting)}: cannot listen on port {port} of {host} ({error.strerror})"
                raise SettingError(message) from None
    _log.warning("no metrics: no port is free", first=PORTS[0], last=PORTS[-1])
    return None
