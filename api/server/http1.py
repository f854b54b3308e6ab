"""The web server's settings, chosen by measurement: `docs/adr/0008-server-set-up.md`.

The API and the benchmark's floor (`bench/`) run on the same settings, so that only their work differs.
"""

import resource
from typing import Any, Final

from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes
from granian.http import HTTP1Settings
from granian.log import LogLevels

MAX_REQUESTS = 16_384  # under way at once in a process: 10 000 held polls and room for other requests
BACKLOG = 4_096  # connections not accepted yet; after a restart all clients connect at once
MAX_HEAD_BYTES = 32_768  # in at most a hundred headers; a larger head gets 431, at twice the size at the latest
SPARE_FILES = 256  # descriptors in addition to those of requests: Redis connections, logs, the event loop's own

HTTP_SERVER: Final[dict[str, Any]] = {
    "interface": Interfaces.ASGI,
    "http": HTTPModes.http1,  # proxies speak it, and a held poll takes 13 KiB less than if HTTP/2 is allowed
    "websockets": False,
    "loop": Loops.uvloop,
    "runtime_mode": RuntimeModes.st,  # Python runs in one thread, so the server gains nothing from more
    "backlog": BACKLOG,
    "backpressure": MAX_REQUESTS,
    "log_level": LogLevels.warning,
}
"""Arguments of `granian.Granian`."""


def http1_settings(request_timeout_ms: int) -> HTTP1Settings:
    """Return the limits on the size of a head and the time to send it. The application limits the body."""
    return HTTP1Settings(header_read_timeout=request_timeout_ms, max_buffer_size=MAX_HEAD_BYTES)


def allow_open_files() -> None:
    """Raise this process' limit of open files, as far as allowed, to what `MAX_REQUESTS` connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_REQUESTS + SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
