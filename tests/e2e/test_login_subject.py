import httpx
import msgspec
import pytest

from tests.support.redis_server import RedisServer
from tests.support.services import Service

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
    minted = "refresh_token" not in form  # its family is opened
    assert [data["login_subject"] for data in later] == [SUBJECT] * (2 + minted)
    assert SUBJECT not in service.output
    assert "ada@example.org" not in service.output


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
