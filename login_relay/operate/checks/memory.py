"""What the logins of a relay take in Redis at worst, and what their refresh tokens will take: checks of the doctor."""

from login_relay.operate.checks.check import Check, Level, Seen, config_set, newest_events
from login_relay.operate.relay import Relay
from projects.project import Project
from projects.worst_case import TYPICAL_FAMILY_BYTES, WorstCase, consumed_bytes, families_bytes
from runtime.clock import redis_now
from runtime.settings import Settings

HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def worst_case(settings: Settings, projects: list[Project]) -> WorstCase:
    """Return what the budgets allow."""
    return WorstCase.of(
        live_sessions=settings.live_sessions_per_project, events=settings.events_max, projects=max(1, len(projects))
    )


def check_budgets(seen: Seen, settings: Settings, projects: list[Project], *, opens_families: bool) -> list[Check]:
    """Whether `maxmemory` holds what strangers can leave in Redis within the budgets (ADR 15)."""
    worst = worst_case(settings, projects)
    limit = int(seen.info["maxmemory"])
    says = (
        f"at worst {worst.relay >> 20} MiB: {worst.project >> 20} of sessions a project ({worst.projects}), "
        f"{worst.events >> 20} of events"
    )
    more = config_set("maxmemory", f"{(worst.relay >> 20) + 1}mb")
    if not limit:
        return [Check("budgets", Level.NOTE, f"{says}; without maxmemory the kernel may end the server", more)]
    if worst.relay > limit:
        says += f"; maxmemory is {limit >> 20}: an attack on one project can refuse the new logins of all"
        mend = f"{more}, or lower LOGIN_RELAY_LIVE_SESSIONS_PER_PROJECT or LOGIN_RELAY_EVENTS_MAX"
        return [Check("budgets", Level.FINDING, says, mend)]
    checks = [Check("budgets", Level.OK, f"{says}; maxmemory is {limit >> 20}")]
    open_to_clients = [project for project in projects if project.allow_client_complete]
    if open_to_clients:
        checks += _consumed(settings, open_to_clients, limit - worst.relay, opens_families=opens_families)
    return checks


def _consumed(settings: Settings, projects: list[Project], left: int, *, opens_families: bool) -> list[Check]:
    """Return a note if strangers can leave more logins that are over than there is memory left."""
    initiations, window_ms, retention_ms = (
        settings.initiations_per_project,
        settings.budget_window_ms,
        settings.retention_ms,
    )
    consumed = consumed_bytes(initiations=initiations, window_ms=window_ms, retention_ms=retention_ms)
    idle_ms = max(_idle_ms(settings, project) for project in projects) if opens_families else 0
    of_tokens = families_bytes(initiations=initiations, window_ms=window_ms, kept_ms=idle_ms + retention_ms)
    if consumed + (of_tokens if opens_families else 0) <= left:
        return []
    says = (
        f"{len(projects)} projects let clients complete: there an attacker with the publishable key can "
        f"leave consumed logins too, up to {consumed >> 20} MiB a project"
    )
    mend = "lower LOGIN_RELAY_RETENTION_MS or LOGIN_RELAY_INITIATIONS_PER_PROJECT"
    if opens_families:
        says += f", and refresh tokens, up to {of_tokens >> 20} MiB"
        mend += f", or {_SHORTER}"
    return [Check("consumed", Level.NOTE, says, mend)]


_SHORTER = "LOGIN_RELAY_REFRESH_TOKEN_IDLE_MS (of one project: login-relay projects update NAME --token-idle)"


def _idle_ms(settings: Settings, project: Project) -> int:
    """Return for how long a refresh token of a project is remembered that nobody uses."""
    asked = project.policy.refresh_token_idle_ms
    return min(asked or settings.refresh_token_idle_ms, settings.refresh_token_idle_ms)


async def check_families(relay: Relay, seen: Seen, projects: list[Project]) -> Check:
    """What the refresh tokens will take that the relay mints, each of which is remembered until it is idle for long.

    Redis has no list of them. The events of the last day say how many come.
    """
    a_day, idle_ms = await _opened_a_day(relay), max((_idle_ms(relay.settings, p) for p in projects), default=0)
    if not a_day:
        return Check("families", Level.OK, "no refresh token of the relay's own was handed over lately")
    days = (idle_ms + relay.settings.retention_ms) / DAY_MS
    bytes_ = int(a_day * days * TYPICAL_FAMILY_BYTES)
    says = (
        f"{a_day:.0f} logins a day, at the rate of the last one: their refresh tokens will take {(bytes_ >> 20) + 1} "
        f"MiB in {days:.0f} days, and those that stay in use come on top"
    )
    limit, worst = int(seen.info["maxmemory"]), worst_case(relay.settings, projects)
    if limit and worst.relay + bytes_ > limit:
        more = config_set("maxmemory", f"{(worst.relay + bytes_ >> 20) + 1}mb")
        says += f"; with the budgets that is more than maxmemory, {limit >> 20} MiB"
        return Check("families", Level.NOTE, says, f"{more}, or lower {_SHORTER}")
    return Check("families", Level.OK, says)


async def _opened_a_day(relay: Relay) -> float:
    """Return how many families a day are opened: the share of the newest events, times all events that are kept."""
    now, opened = await redis_now(relay.redis), 0.0
    for partition in relay.keys.partitions:
        events = relay.keys.events(partition)
        newest = await newest_events(relay, partition)
        if not newest:
            continue
        [(oldest, _)] = await relay.redis.execute_command("XRANGE", events, "-", "+", "COUNT", 1)
        since_ms = max(now - int(oldest.split(b"-")[0]), HOUR_MS)  # a relay that just began tells nothing of a day
        share = sum(fields[b"type"] == b"family.opened" for fields in newest) / len(newest)
        opened += share * await relay.redis.xlen(events) * DAY_MS / since_ms
    return opened
