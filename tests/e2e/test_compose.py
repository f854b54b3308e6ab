"""The compose file, brought up for real on a container engine."""

import json
import os
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

    def containers(self, service: str) -> list[dict[str, Any]]:
        """Return what the engine says of a service's containers."""
        ids = self.run("ps", "--quiet", service).split()
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


def test_a_login_goes_through_the_composed_services(deployment: Deployment) -> None:
    """A project made in a container, a session, a completion by the documented form, and one 201."""
    created = deployment.run("run", "--rm", "api", "projects", "create", "acme", "--json")
    project = json.loads(created)
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
    """Two workers; nobody is root, no file system can be written, no capability is held."""
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
