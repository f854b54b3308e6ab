"""How much of Redis' memory the budgets allow at worst (`docs/adr/0015-memory-is-bounded-by-budgets.md`). Pure.

The bytes of one session and of one event are measured with the longest facts that the wire allows, each session from an
address of its own, on the server that needs most for them (Redis 7.4); a test measures them again.
"""

from typing import NamedTuple

SESSION_BYTES = 2_600  # with its login code, deadline, places among the live sessions, and the counter of its address
EVENT_BYTES = 1_450  # the mean of the three of a login that was completed for the longest subject
CONSUMED_BYTES = 3_500  # a login that is over, as it is remembered
FAMILY_BYTES = 4_000  # a refresh token of the relay's own, as it is remembered
TYPICAL_FAMILY_BYTES = 1_100  # the same with a short subject and one scope
RESERVE_BYTES = 128 << 20  # connections, scripts, commands under way, counters of addresses that guess
DEFAULT_PROJECTS = 2  # what the default of LOGIN_RELAY_REDIS_MEMORY_MB has room for


class WorstCase(NamedTuple):
    """What the budgets allow, in bytes."""

    project: int
    """The sessions of one project that are remembered and not consumed."""
    events: int
    """All events that are kept."""
    projects: int
    """How many projects there are."""

    @classmethod
    def of(cls, *, live_sessions: int, events: int, projects: int) -> "WorstCase":
        """Return it for so many live sessions of each project, and so many events in all."""
        return cls(live_sessions * SESSION_BYTES, events * EVENT_BYTES, projects)

    @property
    def relay(self) -> int:
        """Return what the server must have room for."""
        return self.projects * self.project + self.events + RESERVE_BYTES


def consumed_bytes(*, initiations: int, window_ms: int, retention_ms: int) -> int:
    """Return what the consumed logins of a project take at worst, if each login that it may start is consumed.

    Only who may complete can cause it: its backend, or an attacker where the publishable key completes.
    """
    return _logins(initiations, window_ms, retention_ms) * CONSUMED_BYTES


def families_bytes(*, initiations: int, window_ms: int, kept_ms: int) -> int:
    """Return what the refresh tokens of a project's logins take at worst, if each is minted, and remembered so long."""
    return _logins(initiations, window_ms, kept_ms) * FAMILY_BYTES


def _logins(initiations: int, window_ms: int, kept_ms: int) -> int:
    """Return how many logins a project may start in a time."""
    return initiations * (-(-kept_ms // window_ms) + 1)


def memory_mb(worst: WorstCase) -> int:
    """Return the least `LOGIN_RELAY_REDIS_MEMORY_MB` in whole GiB of data whose half, `maxmemory`, holds it."""
    return 2 * 1_024 * -(-worst.relay // (1 << 30))
