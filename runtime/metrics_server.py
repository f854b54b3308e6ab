"""Serves `/metrics` to Prometheus, on a port of its own: the counters of a process and the state of the backlog.

The API's port faces the internet. This port is for the monitoring, and it listens on loopback by default.
"""

import os
import socket
from socketserver import TCPServer, ThreadingMixIn
from threading import Thread

import structlog
from prometheus_client import CollectorRegistry, Counter, MetricsHandler, disable_created_metrics

from runtime.errors import SettingError
from runtime.settings import Settings, variable

PATH = "/metrics"
PORTS = range(9464, 9564)
"""The ports that a process tries if the settings name none. Several processes on one machine then need no settings."""
SCRAPE_TIMEOUT = 10.0  # seconds; the default of Prometheus


RECONNECTS = Counter(
    "login_relay_reconnects", "Interruptions of a connection to Redis, by what uses it and why.", ["loop", "reason"]
)

disable_created_metrics()  # type: ignore[no-untyped-call] # they double the series of every counter

_log = structlog.get_logger("metrics")


class MetricsServer(ThreadingMixIn, TCPServer):
    """Serves `/metrics` from threads of its own. `listen` constructs it."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, family: int, address: tuple[str, int], registry: CollectorRegistry) -> None:
        self.address_family = family

        class Handler(MetricsHandler):
            timeout = SCRAPE_TIMEOUT  # ends the connection of a client that sends nothing

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
        """The address of the metrics."""
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}{PATH}" if ":" in str(host) else f"http://{host!s}:{port}{PATH}"

    def start(self) -> None:
        """Serve in a thread until the process ends."""
        Thread(target=self.serve_forever, name="metrics", daemon=True).start()
        _log.info("metrics", url=self.url)


def listen(settings: Settings, registry: CollectorRegistry) -> MetricsServer | None:
    """Return a server that is bound to its port but not started; None if metrics are off or no port is free.

    Raises:
        SettingError: the settings name an address or a port that cannot be listened on.

    """
    host, named = settings.metrics_host, settings.metrics_port
    if named == 0:
        return None
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
