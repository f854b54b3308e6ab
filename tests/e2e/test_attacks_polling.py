import asyncio
import secrets

import httpx
import pytest

from runtime.codes import s256
from tests.support.attacker import INVALID_POLLING_CODE, PROXIES, USER_AGENT_TOLD, Client, Login, new_project, refusals
from tests.support.eventually import wait_until
from tests.support.redis_server import RedisServer
from tests.support.services import Service, StartService

INTERVAL = 2
PAUSE_MS = 1_600  # 0.8 intervals


@pytest.fixture(scope="module")
def target(start_shared: StartService) -> Service:
    """Two API processes that throttle polls."""
    return start_shared(apis=2, trusted_proxies=PROXIES, throttle_polls=True, poll_interval_s=INTERVAL)


@pytest.fixture
def client(target: Service) -> Client:
    """A tool of a project of its own."""
    return Client(target, new_project(target))


def pass_time(server: RedisServer, target: Service, login: Login) -> None:
    """Delete the key that throttles a session's polls, as if it had expired."""
    with server.client() as redis:
        redis.delete(target.keys.polled(login.session_id))


def is_throttled(answer: httpx.Response) -> bool:
    """Whether it is the 429 of a poll that came too soon."""
    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        assert answer.text.startswith("This login was asked about too soon.")
        return True
    assert answer.json() == {"status": "waiting"}
    return False


def verifier() -> str:
    """Return a code verifier (RFC 7636 §4.1)."""
    return secrets.token_urlsafe(32)


def test_hurried_polls_of_a_pending_session_are_refused(
    redis_server: RedisServer, target: Service, client: Client
) -> None:
    """The first is free; for one within 0.8 intervals every process answers how long to wait, in whole seconds."""
    login = client.initiate()
    assert [is_throttled(client.poll(login.polling_code)) for _ in range(4)] == [False, True, True, True]
    with redis_server.client() as redis:
        assert 0 < redis.pttl(target.keys.polled(login.session_id)) <= PAUSE_MS
    assert client.poll(login.polling_code).headers["retry-after"] in {"1", "2"}
    pass_time(redis_server, target, login)
    assert not is_throttled(client.poll(login.polling_code))


def test_refused_poll_does_not_move_the_window(redis_server: RedisServer, target: Service, client: Client) -> None:
    """A client that never waits still gets an answer every 0.8 intervals."""
    login = client.initiate()
    client.poll(login.polling_code)
    with redis_server.client() as redis:
        ends = redis.pexpiretime(target.keys.polled(login.session_id))
        assert is_throttled(client.poll(login.polling_code))
        assert redis.pexpiretime(target.keys.polled(login.session_id)) == ends
    assert asyncio.run(
        wait_until(lambda: not is_throttled(client.poll(login.polling_code)), within=PAUSE_MS / 1000 + 1)
    )


def test_completed_session_is_never_throttled(client: Client) -> None:
    """A poll a moment after the last one gets the token, if it is there."""
    login = client.initiate()
    client.poll(login.polling_code)
    assert is_throttled(client.poll(login.polling_code))
    client.complete(login.login_code, refresh_token="rt")
    assert client.poll(login.polling_code).json() == {"status": "success", "refresh_token": "rt"}
    assert [client.poll(login.polling_code).json() for _ in range(3)] == [{"status": "used"}] * 3


def test_expired_session_is_never_throttled(client: Client) -> None:
    """Nobody has to wait for the news that the session has expired."""
    login = client.initiate(expires_in_millis=1_000)

    def is_expired() -> bool:
        answer = client.poll(login.polling_code)
        return answer.status_code == httpx.codes.OK and answer.json() == {"status": "expired"}

    asyncio.run(wait_until(is_expired, within=3))
    assert [client.poll(login.polling_code).json() for _ in range(3)] == [{"status": "expired"}] * 3


def test_only_the_holder_of_the_polling_code_moves_the_window(client: Client) -> None:
    """Session ids are not secret: with one alone, or without the verifier, an attacker cannot slow down its tool."""
    proof = verifier()
    login = client.initiate(code_challenge=s256(proof).decode())
    client.poll(login.polling_code[:-4] + "AAAA", code_verifier=proof)
    client.poll(login.polling_code)
    assert not is_throttled(client.poll(login.polling_code, code_verifier=proof))
    assert is_throttled(client.poll(login.polling_code, code_verifier=proof))


def test_held_poll_is_one_poll(client: Client) -> None:
    """A held poll reads its session more than once, and none of these reads is throttled."""
    login = client.initiate()
    held = client.post(
        "/poll", {"polling_code": login.polling_code}, {**client.project.client_headers, "prefer": "wait=2"}
    )
    assert held.json() == {"status": "waiting"}


async def test_held_polls_do_not_take_all_connections(start_service: StartService) -> None:
    """Polls beyond what a process can hold are answered at once until there is room; they block no other client."""
    service = await asyncio.to_thread(start_service, held_polls_max=3)
    client = Client(service, service.project)
    login = client.initiate()
    headers = {**client.project.client_headers, "prefer": "wait=30"}
    async with httpx.AsyncClient(base_url=f"{service.url}/api/v1/auth/cli", headers=headers, timeout=60) as http:

        async def poll() -> httpx.Response:
            return await http.post("/poll", json={"polling_code": login.polling_code})

        held = [asyncio.create_task(poll()) for _ in range(3)]

        async def is_full() -> bool:
            answer = asyncio.create_task(poll())
            done, _ = await asyncio.wait({answer}, timeout=5)
            if not done:
                held.append(answer)
                return False
            assert answer.result().json() == {"status": "waiting"}
            return True

        assert await wait_until(is_full, within=30)
        assert sum(not answer.done() for answer in held) == 3
        assert client.complete(login.login_code, refresh_token="rt").json() == {"success": True}
        told = [answer.json()["status"] for answer in await asyncio.gather(*held)]
        assert told.count("success") == 1
        again = client.initiate()
        answer = asyncio.create_task(http.post("/poll", json={"polling_code": again.polling_code}))
        assert not (await asyncio.wait({answer}, timeout=0.5))[0]
        client.complete(again.login_code, refresh_token="rt")
        assert (await answer).json()["status"] == "success"


def test_throttled_polls_are_told_once_a_session(redis_server: RedisServer, target: Service, client: Client) -> None:
    """One event for a session, however often it is polled."""
    logins = [client.initiate() for _ in range(2)]
    for _ in range(6):
        for login in logins:
            client.poll(login.polling_code)
    told = refusals(redis_server, target, client.project)
    assert [(audit.type, audit.subject) for audit in told] == [
        ("audit.poll_throttled", login.session_id) for login in logins
    ]
    of_client = {"address": client.address, "user_agent": USER_AGENT_TOLD}
    assert told[0].data == {"project_id": client.project.project_id, **of_client}


def test_published_clients_are_not_throttled(service: Service) -> None:
    """Without the setting, polls are answered at any rate."""
    client = Client(service, service.project)
    login = client.initiate()
    assert [client.poll(login.polling_code).json() for _ in range(5)] == [{"status": "waiting"}] * 5


def wrong_answers(client: Client, login: Login, proof: str) -> list[httpx.Response]:
    """Return the answers to a thief who has the polling code and anything but the right verifier."""
    return [
        client.poll(login.polling_code),
        client.poll(login.polling_code, code_verifier=verifier()),
        client.poll(login.polling_code, code_verifier=s256(proof).decode()),
        client.poll(login.polling_code, code_verifier=""),
        client.poll(login.polling_code, code_verifier=proof + "A"),
        client.poll(login.polling_code, code_verifier=proof.swapcase()),
    ]


def test_stolen_polling_code_of_a_bound_session_is_worth_nothing(
    redis_server: RedisServer, target: Service, client: Client
) -> None:
    """Without the verifier it is answered exactly like an unknown code: pending, completed and consumed alike."""
    proof = verifier()
    login = client.initiate(code_challenge=s256(proof).decode(), code_challenge_method="S256")
    unknown = client.guess_polling_code()
    assert unknown.json()["code"] == INVALID_POLLING_CODE
    ignored = {"date", *(f"x-{name}-request-id" for name in ("stack", "hexclave"))}

    def answers_like_unknown() -> bool:
        return all(
            (answer.status_code, answer.content) == (unknown.status_code, unknown.content)
            and {name: value for name, value in answer.headers.items() if name not in ignored}
            == {name: value for name, value in unknown.headers.items() if name not in ignored}
            for answer in wrong_answers(client, login, proof)
        )

    assert answers_like_unknown()
    assert client.poll(login.polling_code, code_verifier=proof).json() == {"status": "waiting"}
    client.complete(login.login_code, refresh_token="rt")
    assert answers_like_unknown()
    pass_time(redis_server, target, login)
    assert client.poll(login.polling_code, code_verifier=proof).json()["refresh_token"] == "rt"
    assert answers_like_unknown()
    assert client.poll(login.polling_code, code_verifier=proof).json() == {"status": "used"}


def test_replayed_answer_needs_the_verifier_too(client: Client) -> None:
    """An attacker who saw the code and the Idempotency-Key of a poll does not get its token a second time."""
    proof = verifier()
    login = client.initiate(code_challenge=s256(proof).decode())
    client.complete(login.login_code, refresh_token="rt")
    headers = {**client.project.client_headers, "idempotency-key": "once"}
    for _ in range(2):
        answer = client.post("/poll", {"polling_code": login.polling_code, "code_verifier": proof}, headers)
        assert answer.json()["refresh_token"] == "rt"
    stolen = client.post("/poll", {"polling_code": login.polling_code}, headers)
    assert stolen.json()["code"] == INVALID_POLLING_CODE


def test_verifier_for_a_session_without_challenge_is_wrong(client: Client) -> None:
    """A tool that sends a verifier believes its session bound; an unbound session is not its own (RFC 9700 §4.8.2)."""
    login = client.initiate()
    assert client.poll(login.polling_code, code_verifier=verifier()).json()["code"] == INVALID_POLLING_CODE
    assert client.poll(login.polling_code).json() == {"status": "waiting"}


def test_failed_binding_is_told_and_counted(redis_server: RedisServer, target: Service, client: Client) -> None:
    """One event for a session and address; each attempt counts as one guess."""
    proof = verifier()
    login = client.initiate(code_challenge=s256(proof).decode())
    thief = Client(target, client.project)
    count = len(wrong_answers(thief, login, proof))
    told = refusals(redis_server, target, client.project)
    assert [(audit.type, audit.subject) for audit in told] == [("audit.binding_failed", login.session_id)]
    of_thief = {"address": thief.address, "user_agent": USER_AGENT_TOLD}
    assert told[0].data == {"project_id": client.project.project_id, **of_thief}
    with redis_server.client() as redis:
        assert int(redis.get(target.keys.wrong_codes_of_address(thief.address)) or 0) == count


def test_only_a_bound_session_has_a_challenge(redis_server: RedisServer, target: Service, client: Client) -> None:
    """It is stored only if it was given."""
    challenge = s256(verifier()).decode()
    with redis_server.client() as redis:
        for body, kept in (({}, None), ({"code_challenge": challenge}, challenge.encode())):
            login = client.initiate(**body)
            assert redis.hget(target.keys.session(login.session_id), "code_challenge") == kept


@pytest.mark.parametrize(
    "body",
    [
        {"code_challenge": "A" * 42},
        {"code_challenge": "A" * 44},
        {"code_challenge": "A" * 42 + "="},
        {"code_challenge": "A" * 43 + "\n"},
        {"code_challenge": "+" * 43},
        {"code_challenge": None},
        {"code_challenge": "A" * 43, "code_challenge_method": "plain"},
        {"code_challenge": "A" * 43, "code_challenge_method": "s256"},
        {"code_challenge_method": "S256"},
    ],
)
def test_challenge_that_is_none_is_refused(client: Client, body: dict[str, object]) -> None:
    """Only S256, and only 43 characters of base64url: with `plain` the challenge would be the verifier."""
    answer = client.post("", body)
    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert answer.headers["x-stack-known-error"] == "SCHEMA_ERROR"
    assert "code_challenge" in answer.text
