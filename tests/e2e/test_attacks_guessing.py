from collections.abc import Callable

import httpx
import pytest

from tests.support.attacker import (
    INVALID_LOGIN_CODE,
    INVALID_POLLING_CODE,
    PROXIES,
    USER_AGENT_TOLD,
    Client,
    new_address,
    new_project,
    refusals,
)
from tests.support.redis_server import RedisServer
from tests.support.services import Service, StartService

PER_ADDRESS, PER_KEY, PER_PROJECT = 4, 8, 12
WINDOW_MS = 60_000

Guess = Callable[[Client], httpx.Response]


@pytest.fixture(scope="module")
def target(start_shared: StartService) -> Service:
    """Two API processes with small budgets."""
    return start_shared(
        apis=2,
        trusted_proxies=PROXIES,
        budget_window_ms=WINDOW_MS,
        wrong_codes_per_address=PER_ADDRESS,
        wrong_codes_per_key=PER_KEY,
        wrong_codes_per_project=PER_PROJECT,
    )


def polling(client: Client) -> httpx.Response:
    """Guess a polling code."""
    return client.guess_polling_code()


def completing(client: Client) -> httpx.Response:
    """Guess a login code."""
    return client.guess_login_code()


def is_refused(answer: httpx.Response) -> bool:
    """Return whether it is the 429 past a budget; fails unless it is that or the answer to a wrong code."""
    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        assert answer.text == "Too many wrong codes. Try again later."
        assert 1 <= int(answer.headers["retry-after"]) <= WINDOW_MS // 1000
        return True
    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert INVALID_LOGIN_CODE in answer.text or answer.json()["code"] == INVALID_POLLING_CODE
    return False


GUESSES: dict[str, Guess] = {
    "polling code": polling,
    "polling code that is none": lambda client: client.poll("lrp_guess"),
    "polling code of another secret": lambda client: client.poll(client.initiate().polling_code[:-8] + "AAAAAAAA"),
    "login code": completing,
    "login code that is none": lambda client: client.complete("guess"),
    "login code to check": lambda client: client.guess_login_code(mode="check"),
    "login code with a key for its outcome": lambda client: client.guess_login_code(
        {**client.project.server_headers, "idempotency-key": "again"}
    ),
}


@pytest.mark.parametrize("guess", GUESSES.values(), ids=GUESSES)
def test_guesses_past_the_budget_of_an_address_are_refused(target: Service, guess: Guess) -> None:
    """Every way to try a code is counted, by all API processes together."""
    client = Client(target, new_project(target))
    assert [is_refused(guess(client)) for _ in range(PER_ADDRESS + 2)] == [False] * PER_ADDRESS + [True] * 2


def test_all_endpoints_share_one_budget(target: Service) -> None:
    """An attacker who has used up the budget on polls has none left at complete."""
    client = Client(target, new_project(target))
    answers = [(completing if number % 2 else polling)(client) for number in range(PER_ADDRESS)]
    assert not any(map(is_refused, answers))
    assert is_refused(completing(client))
    assert is_refused(polling(client))


def test_an_address_has_one_budget_in_all_projects(target: Service) -> None:
    """Another project's keys give no new budget."""
    address = new_address()
    clients = [Client(target, new_project(target), address) for _ in range(2)]
    assert not any(is_refused(completing(clients[0])) for _ in range(PER_ADDRESS))
    assert is_refused(completing(clients[1]))


def test_ipv6_addresses_of_one_network_have_one_budget(target: Service) -> None:
    """An attacker has 2^64 addresses at once, and the budget of one."""
    project = new_project(target)
    network = f"2001:db8:{new_address().rsplit('.')[-1]}:1"
    answers = [completing(Client(target, project, f"{network}::{number:x}")) for number in range(1, PER_ADDRESS + 2)]
    assert list(map(is_refused, answers)) == [False] * PER_ADDRESS + [True]


def test_guesses_from_many_addresses_are_refused_by_key_and_project(target: Service) -> None:
    """A botnet in which each member guesses once meets the budget of the key; with other keys, that of the project."""
    project = new_project(target)
    with_key = [is_refused(polling(Client(target, project))) for _ in range(PER_KEY + 1)]
    assert with_key == [False] * PER_KEY + [True]
    remaining = PER_PROJECT - PER_KEY
    with_other = [is_refused(completing(Client(target, project))) for _ in range(remaining + 1)]
    assert with_other == [False] * remaining + [True]


def test_an_address_past_its_budget_uses_up_no_other(target: Service) -> None:
    """One attacker alone cannot cause the project's honest mistakes to be refused."""
    project = new_project(target)
    attacker = Client(target, project)
    for _ in range(PER_PROJECT + 1):
        polling(attacker)
    assert not is_refused(polling(Client(target, project)))


def test_right_codes_work_past_every_budget(target: Service) -> None:
    """Guesses lock out no holder of a right code, not even at the attacker's own address."""
    project = new_project(target)
    attacker = Client(target, project)
    neighbour = Client(target, project, attacker.address)
    login = neighbour.initiate()
    while not is_refused(completing(Client(target, project))):
        pass
    for _ in range(PER_ADDRESS):
        completing(attacker)
    assert is_refused(completing(attacker))
    assert neighbour.poll(login.polling_code).json() == {"status": "waiting"}
    assert neighbour.complete(login.login_code, mode="check").json() == {"cli_session_state": "none"}
    assert neighbour.complete(login.login_code, refresh_token="rt").json() == {"success": True}
    assert neighbour.poll(login.polling_code).json() == {"status": "success", "refresh_token": "rt"}


def test_right_codes_are_never_counted(target: Service) -> None:
    """A hundred polls, an expired session and a second completion use up nothing: those codes are right."""
    client = Client(target, new_project(target))
    login, brief = client.initiate(), client.initiate(expires_in_millis=1_000)
    for _ in range(100):
        assert client.poll(login.polling_code).json() == {"status": "waiting"}
    assert client.complete(login.login_code).json() == {}
    for _ in range(PER_ADDRESS):
        assert client.complete(login.login_code).text == INVALID_LOGIN_CODE
    while client.poll(brief.polling_code).json() != {"status": "expired"}:
        pass
    assert [is_refused(polling(client)) for _ in range(PER_ADDRESS + 1)] == [False] * PER_ADDRESS + [True]


def test_budget_starts_again_after_its_window(redis_server: RedisServer, target: Service) -> None:
    """The time in `Retry-After` is that of the counter; more guesses do not extend it."""
    client = Client(target, new_project(target))
    counter = target.keys.wrong_codes_of_address(client.address)
    polling(client)
    with redis_server.client() as redis:
        ends = redis.pexpiretime(counter)
        for _ in range(PER_ADDRESS + 3):
            polling(client)
        assert redis.pexpiretime(counter) == ends
        redis.delete(counter)  # as when it expires
    assert not is_refused(polling(client))


def test_refused_guesses_are_told_once_and_at_each_tenfold(redis_server: RedisServer, target: Service) -> None:
    """A handful of events show an operator who guesses, and how much; they contain no code."""
    project = new_project(target)
    client = Client(target, project)
    for _ in range(10 * PER_ADDRESS + 5):
        polling(client)
    told = refusals(redis_server, target, project)
    assert [(audit.type, audit.subject) for audit in told] == [("audit.guess_refused", project.project_id)] * 2
    assert [audit.data["wrong_codes"] for audit in told] == [PER_ADDRESS + 1, 10 * PER_ADDRESS]
    assert told[0].data == {
        "project_id": project.project_id,
        "code": "polling",
        "budget": "address",
        "wrong_codes": PER_ADDRESS + 1,
        "address": client.address,
        "user_agent": USER_AGENT_TOLD,
    }


def test_a_botnet_cannot_flood_the_events(redis_server: RedisServer, target: Service) -> None:
    """Past the budgets of key and project each new address could cause an event; key and project cause one each."""
    project = new_project(target)
    for _ in range(PER_PROJECT + 10):
        polling(Client(target, project))
        completing(Client(target, project))
    told = [audit.data["budget"] for audit in refusals(redis_server, target, project)]
    assert sorted(set(told)) == ["key", "project"]
    assert len(told) <= 4
