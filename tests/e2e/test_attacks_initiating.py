import asyncio

import httpx
import pytest

from tests.support.attacker import PROXIES, USER_AGENT_TOLD, Client, Login, new_project, refusals
from tests.support.eventually import wait_until
from tests.support.redis_server import RedisServer
from tests.support.services import Service, StartService

PER_ADDRESS, PER_PROJECT, LIVE = 6, 20, 9
WINDOW_MS = 60_000


@pytest.fixture(scope="module")
def target(start_shared: StartService) -> Service:
    """Two API processes with small budgets."""
    return start_shared(
        apis=2,
        trusted_proxies=PROXIES,
        budget_window_ms=WINDOW_MS,
        initiations_per_address=PER_ADDRESS,
        initiations_per_project=PER_PROJECT,
        live_sessions_per_project=LIVE,
        outcome_wait_ms=2_600,
        abandoned_retention_ms=2_700,
    )


def initiate(client: Client, **body: object) -> Login | None:
    """Start a login; None if it is refused with 429."""
    answer = client.post("", body)
    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        assert answer.text == "Too many logins were started. Try again later."
        assert int(answer.headers["retry-after"]) >= 1
        return None
    told = answer.json()
    return Login(told["login_code"], told["polling_code"], told["session_id"])


def consume(client: Client, login: Login) -> None:
    """See a login through to its end."""
    client.complete(login.login_code)
    assert client.poll(login.polling_code).json()["status"] == "success"


def test_an_address_starts_only_so_many_logins(target: Service) -> None:
    """Counted by all API processes together, whatever the end of the logins."""
    client = Client(target, new_project(target))
    for _ in range(PER_ADDRESS):
        login = initiate(client)
        assert login
        consume(client, login)
    assert initiate(client) is None
    assert initiate(client) is None
    assert initiate(Client(target, client.project))


def test_an_address_past_its_budget_in_one_project_is_not_past_it_in_another(target: Service) -> None:
    """Tenants whose tools share an address, as behind a gateway, do not share its budget."""
    one = Client(target, new_project(target))
    for _ in range(PER_ADDRESS):
        login = initiate(one)
        assert login
        consume(one, login)
    assert initiate(one) is None
    assert initiate(Client(target, new_project(target), one.address))


def test_a_project_starts_only_so_many_logins(target: Service) -> None:
    """Many addresses together use up the project's budget; another project is not affected."""
    project = new_project(target)
    for _ in range(PER_PROJECT):
        client = Client(target, project)
        login = initiate(client)
        assert login
        consume(client, login)
    assert initiate(Client(target, project)) is None
    assert initiate(Client(target, new_project(target)))


def test_an_address_past_its_budget_uses_up_no_project(redis_server: RedisServer, target: Service) -> None:
    """A login that is refused for its address does not count for its project."""
    client = Client(target, new_project(target))
    made = [initiate(client) for _ in range(PER_ADDRESS + 5)]
    assert [login is not None for login in made] == [True] * PER_ADDRESS + [False] * 5
    with redis_server.client() as redis:
        counted = redis.get(target.keys.initiations_in_project(0, client.project.project_id))
    assert int(counted or 0) == PER_ADDRESS


def test_a_project_has_only_so_many_live_sessions(target: Service) -> None:
    """A consumed session makes room for another."""
    project = new_project(target)
    first = Client(target, project)
    logins = [initiate(client) for client in [first, *(Client(target, project) for _ in range(LIVE - 1))]]
    assert all(logins)
    assert initiate(Client(target, project)) is None
    login = logins[0]
    assert login
    first.complete(login.login_code)
    assert initiate(Client(target, project)) is None
    assert first.poll(login.polling_code).json()["status"] == "success"
    assert initiate(Client(target, project))
    assert initiate(Client(target, project)) is None


def test_expired_sessions_make_room(target: Service) -> None:
    """Sessions that nobody completes take up room no longer than they are remembered."""
    project = new_project(target)
    assert all(initiate(Client(target, project), expires_in_millis=1_000) for _ in range(LIVE))
    assert initiate(Client(target, project)) is None
    asyncio.run(wait_until(lambda: initiate(Client(target, project))))


def test_logins_that_are_under_way_are_not_concerned(target: Service) -> None:
    """Logins of a full project, or of an address past its budget, can still be completed."""
    client = Client(target, new_project(target))
    logins = [login for _ in range(PER_ADDRESS + 1) if (login := initiate(client))]
    assert len(logins) == PER_ADDRESS
    for login in logins:
        consume(client, login)


def test_nothing_is_left_of_a_refused_login(redis_server: RedisServer, target: Service) -> None:
    """A flood of initiations fills neither Redis nor the events."""
    client = Client(target, new_project(target))
    while initiate(client):
        pass
    with redis_server.client() as redis:

        def kept() -> tuple[set[bytes], int]:
            """Return the keys, and the number of events of this project."""
            events = redis.xrange(target.keys.events(0))
            mine = [fields for _, fields in events if client.project.project_id.encode() in fields[b"data"]]
            return set(redis.scan_iter(f"{target.settings.prefix}:*")), len(mine)

        keys, events = kept()
        assert events  # of the initiations that were accepted
        assert not any(initiate(client) for _ in range(10))
        keys_after, events_after = kept()
    assert keys_after <= keys  # sessions that other tests left may end meanwhile
    assert events_after == events


def test_refused_initiations_are_told_once(redis_server: RedisServer, target: Service) -> None:
    """One event for the address that is past its budget, and one for a project that is full."""
    project = new_project(target)
    flood = Client(target, project)
    for _ in range(PER_ADDRESS + 5):
        initiate(flood)
    for _ in range(LIVE):
        initiate(Client(target, project))
    told = refusals(redis_server, target, project)
    assert [(audit.type, audit.data["budget"]) for audit in told] == [
        ("audit.initiation_refused", "address"),
        ("audit.initiation_refused", "live_sessions"),
    ]
    assert (told[0].data["address"], told[0].data["user_agent"]) == (flood.address, USER_AGENT_TOLD)
