"""The metrics of an API process. Names and labels are part of the interface: `deploy/` and the documentation use them.

They replace Litestar's plugin, whose middleware costs a pending poll more than all of them together
(docs/adr/0012-requests-are-noted-in-batches.md).
"""

from functools import cache, lru_cache
from typing import get_args

from prometheus_client import Counter, Gauge, Histogram

from statemachine.commands import Command, ExpireSession
from tokens.commands import FamilyCommand

NO_ROUTE = "none"
"""The route of a request that no endpoint matched."""

REQUESTS = Histogram(
    "login_relay_http_request_duration_seconds",
    "Requests by route and real status, from their start to their answer; a held poll takes as long as it is held.",
    ["route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
INITIATED = Counter("login_relay_initiated", "Sessions that were started.")
POLLS = Counter("login_relay_polls", "Polls, by what they were told.", ["outcome"])
OUTCOME_WAIT = Histogram(
    "login_relay_outcome_wait_seconds",
    "How long requests waited for a worker to decide their command.",
    ["command"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
OUTCOME_TIMEOUTS = Counter(
    "login_relay_outcome_timeouts", "Requests for whose command no worker answered in time.", ["command"]
)
BACKLOG_FULL = Counter("login_relay_backlog_full", "Commands not recorded because the backlog was full.", ["command"])
FALLBACKS = Counter(
    "login_relay_hint_fallbacks",
    "Waiters that learnt by looking what a message should have told them.",
    ["waiting_for"],
)
WAITERS = Gauge("login_relay_waiters", "Requests that wait just now.", ["waiting_for"], multiprocess_mode="livesum")

# Present from the start, so that Prometheus sees the first of each as an increase.
for _kind in ("outcome", "change"):
    FALLBACKS.labels(_kind)
    WAITERS.labels(_kind)
for _command in get_args(Command | FamilyCommand):
    if _command is not ExpireSession:  # an operator's, who waits for it himself
        OUTCOME_WAIT.labels(_command.__name__)
        OUTCOME_TIMEOUTS.labels(_command.__name__)
        BACKLOG_FULL.labels(_command.__name__)


@lru_cache(maxsize=1024)
def requests(route: str, status: int) -> Histogram:
    """Return the histogram of one route and status. Cached: `labels` costs as much as counting."""
    return REQUESTS.labels(route, status)


@cache  # as above; there are a handful of commands
def outcome_wait(command: str) -> Histogram:
    """Return the histogram of the waits for one kind of command."""
    return OUTCOME_WAIT.labels(command)
