"""The compose file, started on a container engine."""

import json
import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.redis_server import free_port

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]


class Deployment:
    """One `docker compose` project of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self._compose = ("docker", "compose", "--project-name", f"login-relay-test-{uuid.uuid4().hex[:8]}")
        self._environment = os.environ | {"LOGIN_RELAY_PORT": str(self.port)}

    def run(self, *arguments: str) -> str:
        """Run `docker compose …`; returns what it printed."""
        done = subprocess.run(
            (*self._compose, *arguments),
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def name(self, volume_or_network: str) -> str:
        """Return what the engine calls a volume or network of the file."""
        return f"{self._compose[-1]}_{volume_or_network}"

    def set(self, **variables: str) -> None:
        """Set variables for later commands."""
        self._environment |= variables

    def python_on(self, network: str, program: str, *arguments: str) -> str:
        """Run a program in a container that is only on one of the networks; returns what it printed."""
        done = subprocess.run(
            (
                *("docker", "run", "--rm", "--network", self.name(network), "--entrypoint", "python"),
                *("login-relay:local", "-c", program, *arguments),
            ),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def containers(self, service: str) -> list[dict[str, Any]]:
        """Return the engine's description of a service's containers."""
        ids = self.run("ps", "--all", "--quiet", service).split()
        inspected = subprocess.run(("docker", "inspect", *ids), capture_output=True, text=True, check=True, timeout=60)
        found: list[dict[str, Any]] = json.loads(inspected.stdout)
        return found


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    """The services of docker-compose.yml, healthy."""
    deployment = Deployment()
    try:
        deployment.run("up", "--build", "--detach", "--wait", "--wait-timeout", "120")
        yield deployment
    finally:
        deployment.run("down", "--volumes", "--timeout", "20")


def make_project(deployment: Deployment, name: str) -> dict[str, str]:
    """Create a project as the file's first lines describe; returns it with its keys."""
    project: dict[str, str] = json.loads(deployment.run("run", "--rm", "api", "projects", "create", name, "--json"))
    return project


def test_a_login_goes_through_the_composed_services(deployment: Deployment) -> None:
    """A project created in a container, a session, a completion in the documented form, and one 201."""
    log_in(deployment, make_project(deployment, "acme"))


def log_in(deployment: Deployment, project: dict[str, str]) -> None:
    """Do a whole login."""
    tool = {
        "x-stack-project-id": project["project_id"],
        "x-stack-publishable-client-key": project["publishable_client_key"],
    }
    backend = {
        "x-stack-project-id": project["project_id"],
        "x-stack-secret-server-key": project["secret_server_key"],
    }
    with httpx.Client(base_url=f"http://127.0.0.1:{deployment.port}/api/v1/auth", trust_env=False) as http:
        session = http.post("/cli", headers=tool).json()
        poll = {"polling_code": session["polling_code"]}
        assert http.post("/cli/poll", headers=tool, json=poll).json() == {"status": "waiting"}
        completed = http.post("/cli/complete", headers=backend, json={"login_code": session["login_code"]})
        assert (completed.status_code, completed.json()) == (200, {})
        received = http.post("/cli/poll", headers=tool, json=poll)
        assert received.status_code == 201
        assert received.json()["refresh_token"].startswith("lrt_")
        assert http.post("/cli/poll", headers=tool, json=poll).json() == {"status": "used"}


def test_the_containers_are_locked_down(deployment: Deployment) -> None:
    """Two workers; nobody is root, no file system can be written, no capability is kept."""
    assert len(deployment.containers("worker")) == 2
    for service in ("redis", "api", "worker"):
        for container in deployment.containers(service):
            host = container["HostConfig"]
            assert container["Config"]["User"] not in ("", "root", "0")
            assert host["ReadonlyRootfs"]
            assert host["CapDrop"] == ["ALL"]
            assert container["State"]["Health"]["Status"] == "healthy"


def test_only_the_api_is_reachable_and_only_from_this_machine(deployment: Deployment) -> None:
    """The API's port is bound to loopback; Redis and the workers publish none."""
    [api] = deployment.containers("api")
    assert [binding["HostIp"] for binding in api["HostConfig"]["PortBindings"]["8000/tcp"]] == ["127.0.0.1"]
    for service in ("redis", "worker"):
        for container in deployment.containers(service):
            assert not container["HostConfig"]["PortBindings"]


SCRAPE = """
import socket, sys, urllib.request
for service in ("api", "worker"):
    urllib.request.urlopen(f"http://{service}:9464/metrics", timeout=5).read()
for host in ("redis", *sys.argv[1:]):
    try:
        socket.create_connection((host, 6379), timeout=2).close()
    except OSError:
        continue
    print("reached", host)
"""


def test_from_the_network_of_prometheus_the_metrics_are_reached_and_redis_is_not(deployment: Deployment) -> None:
    """Neither by its name nor by its address."""
    [redis] = deployment.containers("redis")
    joined = redis["NetworkSettings"]["Networks"]
    addresses = [network["IPAddress"] for network in joined.values()]
    assert deployment.python_on("default", SCRAPE, *addresses) == ""
    assert list(joined) == [deployment.name("redis")]


ASK = """
import socket
with socket.create_connection(("redis", 6379), timeout=5) as redis:
    for command in ("PING", "GET lr:x", "AUTH login-relay none", "INFO"):
        redis.sendall(command.encode() + b"\\r\\n")
        print(redis.recv(1024).split()[0].decode())
"""


def test_redis_does_nothing_without_its_password(deployment: Deployment) -> None:
    """Not even on its own network."""
    assert deployment.python_on("redis", ASK).split() == ["-NOAUTH", "-NOAUTH", "-WRONGPASS", "-NOAUTH"]


def test_password_of_redis_is_in_files_of_its_services_alone(deployment: Deployment) -> None:
    """It is in no file that Redis' own user can read, in no environment and on no command line."""
    url = deployment.run("exec", "-T", "api", "cat", "/run/redis/url")
    password = url.removeprefix("redis://login-relay:").partition("@")[0]
    assert len(password) == 64
    names = deployment.run("exec", "-T", "api", "sh", "-c", "stat -c '%n %a %u' /run/redis/*").split("\n")
    assert names[:3] == ["/run/redis/password 600 10001", "/run/redis/url 600 10001", "/run/redis/users.acl 644 10001"]
    assert "denied" in deployment.run(
        "exec", "-T", "redis", "sh", "-c", "cat /run/redis/url /run/redis/password 2>&1 ||:"
    )
    for service in ("redis-access", "redis", "api", "worker"):
        assert password not in json.dumps(deployment.containers(service))
    listed = deployment.run("exec", "-T", "worker", "sh", "-c", "cat /proc/*/cmdline /proc/*/environ 2>&1")
    assert "LOGIN_RELAY_REDIS_URL_FILE=/run/redis/url" in listed


def test_a_new_start_keeps_the_password_and_all_that_redis_had(deployment: Deployment) -> None:
    """Redis replays its append-only file while the rules of its users apply, and drops nothing of it."""
    url = deployment.run("exec", "-T", "api", "cat", "/run/redis/url")
    project = make_project(deployment, "kept")
    deployment.run("up", "--detach", "--force-recreate", "--wait", "--wait-timeout", "120")
    assert deployment.run("exec", "-T", "api", "cat", "/run/redis/url") == url
    log_in(deployment, project)


def test_memory_of_containers_is_limited_and_that_of_redis_before(deployment: Deployment) -> None:
    """The data of Redis may take half of its container's memory."""
    for service in ("redis", "api", "worker"):
        for container in deployment.containers(service):
            assert container["HostConfig"]["Memory"] > 0
    [redis] = deployment.containers("redis")
    checks = json.loads(deployment.run("run", "--rm", "api", "doctor", "--json"))["checks"]
    [memory] = [check["says"] for check in checks if check["name"] == "memory"]
    assert memory == f"noeviction, {redis['HostConfig']['Memory'] >> 21} MiB"


def test_clients_have_addresses_of_their_own_behind_a_proxy_that_is_named(deployment: Deployment) -> None:
    """The file's comment gives the address of a proxy on this machine; its X-Forwarded-For is then trusted."""
    project = make_project(deployment, "guessed")
    keys = {"x-stack-project-id": project["project_id"], "x-stack-secret-server-key": project["secret_server_key"]}

    def address_of_who_guesses(claimed: str) -> str:
        headers = keys | {"x-forwarded-for": claimed}
        with httpx.Client(base_url=f"http://127.0.0.1:{deployment.port}", headers=headers, trust_env=False) as http:
            while http.post("/api/v1/auth/cli/complete", json={"login_code": "BBBB-BBBB-BBBB"}).status_code != 429:
                pass
        events = map(json.loads, deployment.run("run", "--rm", "api", "events", "--json").splitlines())
        refused = [event["data"] for event in events if event["type"] == "audit.guess_refused"]
        address: str = refused[-1]["address"]
        return address

    [command] = re.findall(r"^# +(docker network inspect .*)$", (ROOT / "docker-compose.yml").read_text(), re.MULTILINE)
    command = command.replace("login-relay_default", deployment.name("default"))
    gateway = subprocess.run(
        ("sh", "-c", command), capture_output=True, text=True, check=True, timeout=20
    ).stdout.strip()
    assert address_of_who_guesses("203.0.113.7") == gateway
    deployment.set(LOGIN_RELAY_TRUSTED_PROXIES=f"{gateway}/32")
    deployment.run("up", "--detach", "--wait", "--wait-timeout", "120")
    assert address_of_who_guesses("203.0.113.8") == "203.0.113.8"
