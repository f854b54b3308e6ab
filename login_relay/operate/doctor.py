"""`login-relay doctor`: checks whether a Redis is set up for what the relay promises, and says what to type if not.

It changes nothing except a key of its own, which it deletes.
"""

import time
import uuid
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any

import click
import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from login_relay.operate.checks.announced import check_master_secrets
from login_relay.operate.checks.check import Check, Level, Seen, config_set, newest_events
from login_relay.operate.checks.memory import check_budgets, check_families
from login_relay.operate.relay import Relay, json_option, on_relay
from projects.store import Projects
from runtime.address import UNKNOWN_ADDRESS
from runtime.codes import MAX_PARTITIONS, new_session_id
from runtime.redis.keys import Keys
from statemachine.session import TimedSession
from statemachine.store.reading import Sessions
from tokens.announcing import read_announcements

MIN_REDIS, MIN_VALKEY = (7, 0), (7, 2)
MAX_CLOCK_DIFFERENCE = 2.0  # seconds
MIN_PUBSUB_BUFFER = 1 << 20  # bytes; a hand-over is under 12 KiB, and a busy API may be some hundred of them late
MEMORY_LEFT = 0.1  # of maxmemory; with less, the operator must act
MIN_SESSIONS = 20  # fewer tell nothing of where they come from
ROUND_TRIP = 2.0  # seconds for a message to come back

CONFIGURED = ("appendfsync", "client-output-buffer-limit", "min-replicas-to-write")
"""The options that only CONFIG GET shows. Managed servers often forbid it."""


class Diagnosis(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    findings: int
    checks: list[Check]


def check_version(seen: Seen) -> Check:
    """Streams, scripts and their flags as of Redis 7.0, or Valkey, which began at 7.2."""
    name, text, least = "Redis", str(seen.info["redis_version"]), MIN_REDIS
    if "valkey_version" in seen.info:
        name, text, least = "Valkey", str(seen.info["valkey_version"]), MIN_VALKEY
    version = tuple(int(part) for part in text.split(".")[:2])
    if version < least:
        wanted = f"Redis {MIN_REDIS[0]}.{MIN_REDIS[1]} or Valkey {MIN_VALKEY[0]}.{MIN_VALKEY[1]}"
        return Check("version", Level.FINDING, f"{name} {text} is too old", f"upgrade to {wanted} or newer")
    return Check("version", Level.OK, f"{name} {text}")


def check_role(seen: Seen) -> Check:
    """The relay writes, and uses one server."""
    if seen.info.get("cluster_enabled"):
        return Check(
            "role", Level.FINDING, "the server is in cluster mode", "set cluster-enabled no: one server is used"
        )
    if seen.info["role"] != "master":
        return Check("role", Level.FINDING, "the server is a replica", "set LOGIN_RELAY_REDIS_URL to its primary")
    return Check("role", Level.OK, "primary, not in cluster mode")


def check_memory(seen: Seen) -> Check:
    """Eviction would delete sessions, or a stream with its group."""
    policy, limit, used = (seen.info[name] for name in ("maxmemory_policy", "maxmemory", "used_memory"))
    if policy != "noeviction":
        says = f"maxmemory-policy is {policy}: a full server would drop sessions and commands without a word"
        return Check("memory", Level.FINDING, says, config_set("maxmemory-policy", "noeviction"))
    if limit and used > (1 - MEMORY_LEFT) * limit:
        says = f"{used >> 20} of {limit >> 20} MiB are used: when full, new logins are refused"
        return Check("memory", Level.FINDING, says, config_set("maxmemory", f"{2 * limit >> 20}mb"))
    return Check("memory", Level.OK, "noeviction" + (f", {limit >> 20} MiB" if limit else ", no limit"))


def check_persistence(seen: Seen) -> Check:
    """Without an append-only file, a server that is killed loses what it has acknowledged."""
    if not seen.info["aof_enabled"]:
        says = "there is no append-only file: a server that dies loses logins that were acknowledged"
        return Check("persistence", Level.FINDING, says, config_set("appendonly", "yes"))
    if seen.info["aof_last_write_status"] != "ok":
        says = "the append-only file could not be written the last time: the server refuses writes, or will"
        return Check("persistence", Level.FINDING, says, "df -h (is the server's disk full?)")
    match (seen.config or {}).get("appendfsync"):
        case "no":
            says = "appendfsync is no: a machine that loses its power loses up to half a minute"
            return Check("persistence", Level.FINDING, says, config_set("appendfsync", "everysec"))
        case "everysec":
            says = "append-only file, synced every second: a machine that loses its power loses up to two seconds"
            return Check(
                "persistence", Level.NOTE, says, f"{config_set('appendfsync', 'always')} loses none, and is slower"
            )
        case None:
            return Check("persistence", Level.OK, "append-only file")
        case how:
            return Check("persistence", Level.OK, f"append-only file, synced {how}")


def check_replicas(seen: Seen) -> Check:
    """A primary without connected replicas goes on acknowledging writes that a failover will undo."""
    count = seen.info["connected_slaves"]
    if not count:
        return Check("replicas", Level.OK, "none")
    if seen.config is None:
        return Check("replicas", Level.UNSEEN, f"{count} replicas; whether writes wait for one cannot be seen")
    if not int(seen.config["min-replicas-to-write"]):
        says = f"{count} replicas, and writes are acknowledged when none of them is there: a failover would undo them"
        return Check("replicas", Level.FINDING, says, config_set("min-replicas-to-write", "1"))
    return Check("replicas", Level.OK, f"{count}, and writes need {seen.config['min-replicas-to-write']}")


def check_subscribers(seen: Seen) -> Check:
    """Checks the limits at which a subscriber that does not read is cut off."""
    if seen.config is None:
        return Check("subscribers", Level.UNSEEN, "the output buffer limit of subscribers cannot be seen")
    words = seen.config["client-output-buffer-limit"].split()
    hard, soft, _ = (int(word) for word in words[words.index("pubsub") + 1 :][:3])
    mend = config_set("client-output-buffer-limit", '"pubsub 32mb 8mb 60"')
    if not hard and not soft:
        says = "the output buffer of subscribers has no limit: one that hangs takes the server's memory"
        return Check("subscribers", Level.FINDING, says, mend)
    least = min(limit for limit in (hard, soft) if limit)
    if least < MIN_PUBSUB_BUFFER:
        says = f"subscribers are cut off at {least >> 10} KiB: API processes would lose their messages under load"
        return Check("subscribers", Level.FINDING, says, mend)
    return Check("subscribers", Level.OK, f"cut off at {least >> 20} MiB")


RULES: tuple[Callable[[Seen], Check], ...] = (
    check_version,
    check_role,
    check_memory,
    check_persistence,
    check_replicas,
    check_subscribers,
)


async def look(redis: Redis) -> Seen:
    """Return what a server reports about itself."""
    info: dict[str, Any] = await redis.info()
    try:
        config: Mapping[str, str] = await redis.execute_command("CONFIG GET", *CONFIGURED)
    except ResponseError:
        return Seen(info, None)
    return Seen(info, config if set(CONFIGURED) <= config.keys() else None)


async def check_clock(redis: Redis) -> Check:
    """Redis' clock decides deadlines; this machine's clock dates log lines and judges admin access tokens."""
    before = time.time()
    seconds, microseconds = await redis.time()
    difference = seconds + microseconds / 1_000_000 - (before + time.time()) / 2
    if abs(difference) > MAX_CLOCK_DIFFERENCE:
        says = (
            f"this machine's clock is {abs(difference):.1f} s {'behind' if difference > 0 else 'ahead of'} the server's"
        )
        return Check("clock", Level.FINDING, says, "timedatectl set-ntp true (on both)")
    return Check("clock", Level.OK, f"{abs(difference) * 1000:.0f} ms apart")


async def check_keys(relay: Relay) -> list[Check]:
    """Check that the prefix and the partitions are those with which the data was written."""
    redis, settings = relay.redis, relay.settings
    everywhere = Keys(settings.prefix, MAX_PARTITIONS)
    used = [p for p in everywhere.partitions if await redis.exists(everywhere.commands(p), everywhere.deadlines(p))]
    if used and used[-1] >= settings.partitions:
        says = f"there are sessions in partition {used[-1]}, and only {settings.partitions} partitions are served"
        return [Check("partitions", Level.FINDING, says, f"set LOGIN_RELAY_PARTITIONS={used[-1] + 1} or more")]
    checks = [Check("partitions", Level.OK, f"{settings.partitions}")]
    if not await redis.exists(relay.keys.project_names()):
        says = f"no project under the prefix {settings.prefix}: nothing was made yet, or LOGIN_RELAY_PREFIX is another"
        checks.append(Check("prefix", Level.NOTE, says, "login-relay projects create NAME"))
    return checks


async def check_addresses(relay: Relay) -> Check:
    """Whether budgets of an address can work: behind a proxy that is not trusted, all clients have its address."""
    ids: list[str] = []
    for partition in relay.keys.partitions:
        newest = await newest_events(relay, partition)
        ids += [fields[b"subject"].decode() for fields in newest if fields[b"type"] == b"session.initiated"]
    sessions = await Sessions(relay.redis, relay.keys).load(ids)
    addresses = [
        session.address
        for session in sessions.values()
        if isinstance(session, TimedSession) and session.address != UNKNOWN_ADDRESS
    ]
    if len(addresses) < MIN_SESSIONS:
        return Check("addresses", Level.OK, f"{len(addresses)} sessions lately")
    [first, *others] = sorted(set(addresses))
    if others or relay.settings.trusted_proxies or not ip_address(first).is_private:
        return Check("addresses", Level.OK, f"{len(others) + 1} addresses started {len(addresses)} sessions lately")
    says = f"all of {len(addresses)} sessions came from {first}: if that is a proxy, all clients share one budget"
    level = Level.NOTE if ip_address(first).is_loopback else Level.FINDING
    return Check("addresses", level, says, f"set LOGIN_RELAY_TRUSTED_PROXIES={first}, or the network of the proxies")


async def check_round_trips(relay: Relay) -> list[Check]:
    """Try a script, a write and a message, which the processes need."""
    me = f"doctor-{uuid.uuid4().hex}"

    async def script() -> None:
        await Sessions(relay.redis, relay.keys).read(new_session_id(0))

    async def write() -> None:
        await relay.redis.set(relay.keys.worker(me), b"", px=1_000)
        await relay.redis.delete(relay.keys.worker(me))

    async def message() -> None:
        async with relay.redis.pubsub() as pubsub:
            channel = relay.keys.replies(0, me)
            await pubsub.subscribe(channel)
            await pubsub.get_message(timeout=ROUND_TRIP)  # the subscription itself
            await relay.redis.publish(channel, me)
            if await pubsub.get_message(timeout=ROUND_TRIP) is None:
                raise TimeoutError

    checks = []
    for name, go in (("script", script), ("write", write), ("message", message)):
        started = time.monotonic()
        try:
            await go()
        except (RedisError, TimeoutError) as error:
            checks.append(Check(name, Level.FINDING, _why(error), "redis-cli ACL WHOAMI, redis-cli INFO replication"))
        else:
            checks.append(Check(name, Level.OK, f"{(time.monotonic() - started) * 1000:.1f} ms"))
    return checks


def _why(error: RedisError | TimeoutError) -> str:
    """Return why a command was refused, without the text of the error, which may quote what was sent."""
    if type(error) is ResponseError:
        return f"refused: {str(error).split(' ', 1)[0]}"
    return f"refused: {type(error).__name__}"


async def diagnose(relay: Relay) -> Diagnosis:
    """Return the results of all checks."""
    seen = await look(relay.redis)
    checks = [rule(seen) for rule in RULES]
    checks.append(await check_clock(relay.redis))
    checks.extend(await check_keys(relay))
    projects = await Projects(relay.redis, relay.keys).list_all()
    announced = await read_announcements(relay.redis, relay.keys)
    opens_families = any(one.fingerprints and one.public_url for one in announced)
    checks.extend(check_budgets(seen, relay.settings, projects, opens_families=opens_families))
    checks.append(await check_families(relay, seen, projects))
    checks.append(await check_addresses(relay))
    checks.extend(check_master_secrets(relay, announced))
    checks.extend(await check_round_trips(relay))
    return Diagnosis(sum(check.level is Level.FINDING for check in checks), checks)


@click.command()
@json_option
@on_relay
async def doctor(relay: Relay, *, as_json: bool) -> int:
    """Check that Redis is set up for what the relay promises, and say what to type if not.

    Exit code 1 if there is a finding. A check that the server does not allow is not a finding.
    """
    diagnosis = await diagnose(relay)
    if as_json:
        click.echo(msgspec.json.encode(diagnosis))
    else:
        for check in diagnosis.checks:
            click.echo(f"{check.level:8} {check.name:12} {check.says}")
            if check.type:
                click.echo(f"{'':21} -> {check.type}")
    return 1 if diagnosis.findings else 0
