"""An attacker with the publishable key who fills a project with sessions that nobody completes."""

import asyncio
import json

import httpx
import pytest
from click.testing import CliRunner

from login_relay.cli import main
from projects.project import KeyKind
from projects.store import Projects
from runtime.redis.connections import command_client
from runtime.redis.keys import Keys
from runtime.settings import variable
from tests.support.attacker import PROXIES, Client, new_project, refusals
from tests.support.eventually import wait_until
from tests.support.redis_server import RedisServer
from tests.support.services import ProjectKeys, Service, StartService

LIVE, PER_ADDRESS = 30, 10
DAY_MS = 86_400_000
LONGEST_WAIT_S = 60


@pytest.fixture(scope="module")
def target(start_shared: StartService) -> Service:
    """A relay with a low limit of live sessions for an address."""
    return start_shared(
        trusted_proxies=PROXIES,
        live_sessions_per_project=LIVE,
        live_sessions_per_address=PER_ADDRESS,
        project_cache_ms=0,
    )


def fill(client: Client) -> httpx.Response:
    """Start logins that live as long as possible, until one is refused; returns that answer."""
    for _ in range(PER_ADDRESS):
        client.initiate(expires_in_millis=DAY_MS)
    return client.post("", {"expires_in_millis": DAY_MS})


def rotate(service: Service, project: ProjectKeys) -> ProjectKeys:
    """Give a project a new publishable key; the old one ends at once."""

    async def change() -> ProjectKeys:
        async with command_client(service.settings, "login-relay:test") as redis:
            projects = Projects(redis, Keys(service.settings.prefix, service.settings.partitions))
            found = await projects.find(project.project_id)
            new = await projects.rotate(found, [KeyKind.PUBLISHABLE_CLIENT], 0)
        return project._replace(publishable_client_key=new[KeyKind.PUBLISHABLE_CLIENT])

    return asyncio.run(change())


def test_one_address_does_not_lock_a_project_out(redis_server: RedisServer, target: Service) -> None:
    """It reaches the limit of an address and is told to retry within a minute; all others can log in."""
    project = new_project(target)
    attacker = Client(target, project)
    refused = fill(attacker)
    assert (refused.status_code, refused.text) == (429, "Too many logins were started. Try again later.")
    assert 1 <= int(refused.headers["retry-after"]) <= LONGEST_WAIT_S
    assert Client(target, project).initiate()
    rotated = rotate(target, project)
    assert attacker.post("", {}).status_code == httpx.codes.UNAUTHORIZED
    assert Client(target, rotated).initiate()
    told = [audit.data["budget"] for audit in refusals(redis_server, target, project) if "budget" in audit.data]
    assert told == ["live_sessions_of_address"]


def test_full_project_says_when_it_may_be_otherwise(target: Service) -> None:
    """Many addresses can still fill a project; a refused tool may retry within a minute, not when the last one ends."""
    project = new_project(target)
    for _ in range(LIVE // PER_ADDRESS):
        fill(Client(target, project))
    refused = Client(target, project).post("", {})
    assert refused.status_code == httpx.codes.TOO_MANY_REQUESTS
    assert 1 <= int(refused.headers["retry-after"]) <= LONGEST_WAIT_S


def test_sessions_of_a_second_fill_no_memory(target: Service) -> None:
    """Sessions count until they are forgotten, so that an address cannot leave behind one after the other."""
    client = Client(target, new_project(target))
    for _ in range(PER_ADDRESS):
        last = client.initiate(expires_in_millis=1_000)
    asyncio.run(wait_until(lambda: client.poll(last.polling_code).json().get("status") == "expired"))
    assert client.post("", {"expires_in_millis": 1_000}).status_code == httpx.codes.TOO_MANY_REQUESTS


def test_one_command_frees_a_project(target: Service) -> None:
    """After an attack from many addresses, the operator ends what is pending, and everybody logs in again."""
    project = new_project(target)
    attackers = [Client(target, project) for _ in range(LIVE // PER_ADDRESS)]
    for attacker in attackers:
        fill(attacker)
    person = Client(target, project)
    assert person.post("", {}).status_code == httpx.codes.TOO_MANY_REQUESTS
    url = target.settings.redis_url
    assert url
    environment = {variable("redis_url"): url, variable("prefix"): target.settings.prefix}
    arguments = ["sessions", "expire", "--project", project.project_id, "--yes", "--json"]
    ended = CliRunner().invoke(main, arguments, env=environment)
    assert json.loads(ended.stdout) == {"expired": LIVE, "over": 0, "undecided": 0}
    assert person.initiate()
    assert attackers[0].initiate()


def test_consumed_sessions_make_room_for_their_address(target: Service) -> None:
    """An office behind one address is limited only by its abandoned logins; IPv6 counts by /64."""
    project = new_project(target)
    one, other = (Client(target, project, f"2001:db8:7:7::{number}") for number in (1, 2))
    login = one.initiate()
    for _ in range(PER_ADDRESS - 1):
        one.initiate()
    assert other.post("", {}).status_code == httpx.codes.TOO_MANY_REQUESTS
    one.complete(login.login_code)
    assert one.poll(login.polling_code).json()["status"] == "success"
    assert other.initiate()
