"""Attacks by those who already have something: a link, a key, a project, a copy of Redis, a worker's place."""

import re
from itertools import chain

import httpx
import pytest

from runtime.codes import POLLING_CODE_PREFIX
from statemachine.commands import CompleteSession, decode_command
from statemachine.errors import SealingError
from statemachine.sealing import unseal
from tests.support.attacker import INVALID_LOGIN_CODE, INVALID_POLLING_CODE, Client, new_project
from tests.support.redis_server import RedisServer
from tests.support.services import Service, StartService

TOKEN = "the-token-of-a-victim"


@pytest.fixture
def victim(service: Service) -> Client:
    """A tool of a project of its own, and its backend."""
    return Client(service, new_project(service))


@pytest.fixture
def insider(service: Service) -> Client:
    """Somebody with all the keys of another project on the same relay."""
    return Client(service, new_project(service, allow_client_complete=True))


def dump(server: RedisServer, prefix: str) -> list[str]:
    """Return every key, field and value below a prefix, as a copy of Redis shows them."""
    with server.client() as redis:
        found: list[bytes] = []
        for key in redis.scan_iter(f"{prefix}:*"):
            found.append(key)
            match redis.type(key):
                case b"string":
                    found.append(redis.get(key) or b"")
                case b"hash":
                    found.extend(chain.from_iterable(redis.hgetall(key).items()))
                case b"zset":
                    found.extend(redis.zrange(key, 0, -1))
                case b"stream":
                    found.extend(chain.from_iterable(chain(*fields.items()) for _, fields in redis.xrange(key)))
    return [value.decode("latin-1") for value in found]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_following_a_link_completes_nothing(service: Service, victim: Client, method: str) -> None:
    """Phishing: no address that a browser opens by itself acts on a login code, not even with the backend's key."""
    login = victim.initiate()
    for path in ("", "/complete", "/poll"):
        answer = httpx.request(
            method,
            f"{service.url}/api/v1/auth/cli{path}",
            params={"login_code": login.login_code, "mode": "complete", "confirmed": "true"},
            headers=victim.project.server_headers,
            trust_env=False,
        )
        assert answer.status_code == 405
    assert victim.poll(login.polling_code).json() == {"status": "waiting"}


def test_a_login_code_without_the_backend_s_key_completes_nothing(victim: Client) -> None:
    """Fixation: an attacker who sees the code and has the tool's publishable key cannot set a token of their own."""
    login = victim.initiate()
    answer = victim.complete(login.login_code, victim.project.client_headers, refresh_token="of-the-attacker")
    assert answer.headers["x-stack-known-error"] == "INSUFFICIENT_ACCESS_TYPE"
    assert victim.complete(login.login_code, refresh_token=TOKEN).status_code == 200
    assert victim.poll(login.polling_code).json()["refresh_token"] == TOKEN


def test_a_second_completion_changes_nothing(victim: Client) -> None:
    """Replay and fixation: the first token stays, whatever is sent after it and with any Idempotency-Key."""
    login = victim.initiate()
    assert victim.complete(login.login_code, refresh_token=TOKEN).status_code == 200
    for key in ({}, {"idempotency-key": "k"}):
        again = victim.complete(login.login_code, victim.project.server_headers | key, refresh_token="another")
        assert (again.status_code, again.text) == (400, INVALID_LOGIN_CODE)
    assert victim.poll(login.polling_code).json()["refresh_token"] == TOKEN
    assert victim.poll(login.polling_code).json() == {"status": "used"}


def test_another_project_learns_and_changes_nothing(victim: Client, insider: Client) -> None:
    """With both codes of a login and every key of another project: the same answers as for unknown codes."""
    login = victim.initiate()
    for mode in ("check", "complete"):
        told = insider.complete(login.login_code, mode=mode)
        assert (told.status_code, told.text) == (400, INVALID_LOGIN_CODE) == _shown(insider.guess_login_code(mode=mode))
    stolen, guessed = insider.poll(login.polling_code), insider.guess_polling_code()
    assert (stolen.status_code, stolen.json()) == (guessed.status_code, guessed.json())
    assert stolen.json()["code"] == INVALID_POLLING_CODE
    assert victim.complete(login.login_code, refresh_token=TOKEN).status_code == 200
    assert insider.poll(login.polling_code).json()["code"] == INVALID_POLLING_CODE
    assert victim.poll(login.polling_code).json()["refresh_token"] == TOKEN


def _shown(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.text


def test_keys_of_one_project_open_no_other(victim: Client, insider: Client) -> None:
    """Another project's id with one's own keys is a wrong key."""
    for headers in (insider.project.client_headers, insider.project.server_headers):
        mixed = headers | {"x-stack-project-id": victim.project.project_id}
        assert victim.post("", {}, mixed).status_code == 401


def test_a_copy_of_redis_opens_no_login_and_no_token(redis_server: RedisServer, start_service: StartService) -> None:
    """Whatever is in it is rejected as a polling code, as a login code and as a key."""
    service = start_service(wrong_codes_per_address=10**6, wrong_codes_per_key=10**6, wrong_codes_per_project=10**6)
    victim = Client(service, service.project)
    pending, completed = victim.initiate(), victim.initiate()
    assert victim.complete(completed.login_code, refresh_token=TOKEN).status_code == 200
    seen = dump(redis_server, service.settings.prefix)
    text = "\n".join(seen)
    assert completed.session_id in text  # it is the copy of this deployment
    secrets = (TOKEN, *victim.project[1:], *(code for login in (pending, completed) for code in login[:2]))
    assert [secret for secret in secrets if secret in text or secret.replace("-", "") in text] == []
    tried = {word for value in seen for word in (value, *re.findall(r"[A-Za-z0-9_-]{20,}", value)) if len(word) < 300}
    for word in tried:
        for session_id in (pending.session_id, completed.session_id):
            guess = f"{POLLING_CODE_PREFIX}{session_id}{word[:32]}"
            assert victim.poll(guess).json()["code"] == INVALID_POLLING_CODE
        assert victim.complete(word).status_code == 400
        if word.isascii() and word.isprintable() and word.strip():
            key = {"x-stack-project-id": service.project.project_id, "x-stack-secret-server-key": word}
            assert victim.complete(pending.login_code, key).status_code == 401
    assert victim.poll(completed.polling_code).json()["refresh_token"] == TOKEN


def test_a_worker_s_place_shows_no_token(redis_server: RedisServer, start_service: StartService) -> None:
    """An attacker who reads the commands in place of a worker gets sealed tokens, and not the codes that open them."""
    service = start_service(workers=0, outcome_wait_ms=2_600)
    victim = Client(service, service.project)
    login = victim.initiate()
    assert victim.complete(login.login_code, refresh_token=TOKEN).status_code == 503  # recorded, and not decided
    with redis_server.client() as redis:
        [(_, entry)] = redis.xrange(service.keys.commands(0))
    assert not [secret for secret in (TOKEN, *login[:2]) if secret.encode() in b" ".join(entry.values())]
    command = decode_command(entry[b"command"])
    assert isinstance(command, CompleteSession)
    project_id = service.project.project_id
    assert unseal(command.sealed_token, login.polling_code, project_id, login.session_id) == TOKEN
    for known in (login.session_id, login.login_code, command.id, entry[b"command"].decode()):
        with pytest.raises(SealingError):
            unseal(command.sealed_token, known, project_id, login.session_id)
