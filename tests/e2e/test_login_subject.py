from pathlib import Path

import httpx
import msgspec
import pytest

from tests.support.logins import Caller
from tests.support.oauth_services import oauth_settings
from tests.support.redis_server import RedisServer
from tests.support.services import Service, StartService

SUBJECT = "user:42 <ada@example.org> ü"


def initiate(service: Service) -> dict[str, str]:
    """Start a login."""
    response = httpx.post(f"{service.url}/api/v1/auth/cli", headers=service.project.client_headers, trust_env=False)
    started: dict[str, str] = response.raise_for_status().json()
    return started


def complete(service: Service, **body: object) -> httpx.Response:
    """Complete a login."""
    return httpx.post(
        f"{service.url}/api/v1/auth/cli/complete",
        headers=service.project.server_headers,
        json=body,
        trust_env=False,
    )


def told(server: RedisServer, service: Service, session_id: str) -> list[dict[str, object]]:
    """Return the data of a session's events."""
    with server.client() as redis:
        entries = redis.xrange(service.keys.events(0))
    return [msgspec.json.decode(fields[b"data"]) for _, fields in entries if fields[b"subject"] == session_id.encode()]


@pytest.mark.parametrize(("form", "answer"), [({}, {}), ({"refresh_token": "own"}, {"success": True})])
def test_subject_is_in_events_and_nowhere_else(
    redis_server: RedisServer, service: Service, form: dict[str, str], answer: dict[str, object]
) -> None:
    """Both forms of complete accept it; the tool does not receive it, and no log contains it."""
    started = initiate(service)
    completed = complete(service, login_code=started["login_code"], subject=SUBJECT, **form)
    assert (completed.status_code, completed.json()) == (200, answer)
    poll = httpx.post(
        f"{service.url}/api/v1/auth/cli/poll",
        headers=service.project.client_headers,
        json={"polling_code": started["polling_code"]},
        trust_env=False,
    )
    assert poll.status_code == 201
    assert poll.json().keys() == {"status", "refresh_token"}
    initiated, *later = told(redis_server, service, started["session_id"])
    assert "login_subject" not in initiated
    assert [data["login_subject"] for data in later] == [SUBJECT, SUBJECT]
    assert SUBJECT not in service.output
    assert "ada@example.org" not in service.output


@pytest.mark.parametrize("has_keys", [True, False])
def test_minted_token_is_remembered_where_something_can_be_done_with_it(
    redis_server: RedisServer, start_service: StartService, tmp_path: Path, *, has_keys: bool
) -> None:
    """Without keys nobody can refresh it or ask whether it is valid: it is handed over, and opens no family."""
    service = start_service(**(oauth_settings(tmp_path) if has_keys else {}))
    started = initiate(service)
    assert complete(service, login_code=started["login_code"], subject=SUBJECT).json() == {}
    caller = Caller(service)
    handed_over = caller.poll(started)
    assert (handed_over.status_code, handed_over.json()["refresh_token"][:4]) == (201, "lrt_")
    with redis_server.client() as redis:
        assert redis.exists(service.keys.family(started["session_id"])) == has_keys
        types = [fields[b"type"] for _, fields in redis.xrange(service.keys.events(0))]
    assert (b"family.opened" in types) == has_keys


@pytest.mark.parametrize(
    "subject",
    ["", "x" * 257, "a\nb", "a\n", "\x7f", "\u202eevil", 42, None, {}],
    ids=lambda subject: repr(subject)[:12],
)
def test_subject_that_does_not_fit_is_refused(redis_server: RedisServer, service: Service, subject: object) -> None:
    """1 to 256 printable characters; the session stays as it was."""
    started = initiate(service)
    refused = complete(service, login_code=started["login_code"], subject=subject)
    assert (refused.status_code, refused.headers["x-stack-known-error"]) == (400, "SCHEMA_ERROR")
    assert "$.subject" in refused.json()["error"]
    longest = "ü" * 256
    assert complete(service, login_code=started["login_code"], subject=longest).is_success
    assert told(redis_server, service, started["session_id"])[-1]["login_subject"] == longest
