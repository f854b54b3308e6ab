"""The cost of a request in Redis: the commands that an API process sends for it, one round trip each."""

import uuid
from collections.abc import Callable

import httpx
import pytest

from runtime.codes import s256
from tests.support.attacker import Client
from tests.support.redis_server import RedisServer
from tests.support.services import Service, StartService

PROOF = "A" * 43
OF_ANY_REQUEST = {"HGETALL", "TIME"}  # the project's, once every five seconds
OF_NO_REQUEST = ":master-secrets "  # a process announces them every five seconds


@pytest.fixture
def client(start_service: StartService) -> Client:
    """A tool of a service whose processes have loaded all their scripts."""
    service = start_service(trusted_proxies="127.0.0.0/8")
    client = Client(service, service.project)
    for body in ({}, {"code_challenge": s256(PROOF).decode()}):
        login = client.initiate(**body)
        client.complete(login.login_code, mode="check")
        client.complete(login.login_code)
        client.poll(login.polling_code, **({"code_verifier": PROOF} if body else {}))
    client.guess_polling_code()
    return client


def sent(server: RedisServer, service: Service, act: Callable[[], httpx.Response]) -> list[str]:
    """Return the names of the commands that the API sends while something is done."""
    done = uuid.uuid4().hex
    with server.client() as redis, redis.monitor() as monitor:
        assert act().status_code < httpx.codes.INTERNAL_SERVER_ERROR
        redis.echo(done)
        names = {connection["addr"]: connection["name"] for connection in redis.client_list()}
        commands = []
        for heard in monitor.listen():
            if done in heard["command"]:
                break
            came_from = names.get(f"{heard['client_address']}:{heard['client_port']}")
            if service.settings.prefix in heard["command"] and came_from == "login-relay:api":
                name, key = heard["command"].split()[:2]
                is_of_the_process = is_of_waiting(name, key) or OF_NO_REQUEST in heard["command"]
                if name not in OF_ANY_REQUEST and not is_of_the_process:
                    commands.append(name)
    return commands


def is_of_waiting(name: str, key: str) -> bool:
    """Return whether it is the look-up of outcomes, which comes once a second on a machine this busy."""
    return name == "MGET" and ":outcome:" in key


@pytest.mark.parametrize("bound", [False, True], ids=["unbound", "bound"])
def test_success_costs_no_round_trip_for_what_is_counted(
    redis_server: RedisServer, client: Client, *, bound: bool
) -> None:
    """The script that makes a session counts the initiation; a wrong code costs one more round trip, binding none."""
    challenge = {"code_challenge": s256(PROOF).decode()} if bound else {}
    proof = {"code_verifier": PROOF} if bound else {}

    def cost(act: Callable[[], httpx.Response]) -> list[str]:
        return sent(redis_server, client.service, act)

    assert cost(lambda: client.post("", challenge)) == ["EVALSHA"]
    login = client.initiate(**challenge)
    assert cost(lambda: client.poll(login.polling_code, **proof)) == ["EVALSHA"]
    assert cost(lambda: client.complete(login.login_code, mode="check")) == ["MGET", "EVALSHA"]
    assert cost(lambda: client.complete(login.login_code)) == ["MGET", "EVALSHA"]
    assert cost(lambda: client.poll(login.polling_code, **proof)) == ["EVALSHA", "EVALSHA"]
    assert cost(lambda: client.poll(login.polling_code, **proof)) == ["EVALSHA"]
    assert cost(client.guess_polling_code) == ["EVALSHA", "EVALSHA"]
    assert cost(client.guess_login_code) == ["MGET", "EVALSHA"]


def test_throttling_costs_no_round_trip(redis_server: RedisServer, start_service: StartService) -> None:
    """The script that reads a session also throttles its polls."""
    service = start_service(throttle_polls=True)
    client = Client(service, service.project)
    client.poll(client.initiate().polling_code)
    login = client.initiate()
    assert sent(redis_server, service, lambda: client.poll(login.polling_code)) == ["EVALSHA"]
