"""What a project requires of its sessions (docs/wire.md 3)."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

from projects.project import Policy
from runtime.codes import s256
from tests.support.services import create_project
from tests.support.wire import INITIATE, Wire

DAY_MS, HALF_AN_HOUR_MS = 86_400_000, 1_800_000
SLACK_MS = 10_000

OfPolicy = Callable[..., Wire]


@pytest.fixture
def of_policy(wire: Wire) -> Iterator[OfPolicy]:
    """Return a function that makes a project with a policy, and returns a client of it."""
    with ExitStack() as stack:

        def client(**policy: object) -> Wire:
            made = create_project(wire.service.settings, f"p-{uuid.uuid4().hex[:8]}", policy=Policy(**policy))  # type: ignore[arg-type] # each test names its own
            project = Wire(wire.service, asyncio.run(made))
            stack.enter_context(project.client)
            return project

        yield client


def lifetime_ms(wire: Wire, **body: object) -> float:
    """Return how long a session may live, by the `expires_at` that its tool gets."""
    answer = wire.post(INITIATE, json=body, headers=wire.client_headers)
    assert answer.status_code == 200
    expires_at = datetime.fromisoformat(answer.json()["expires_at"])
    return (expires_at - datetime.now(UTC)).total_seconds() * 1_000


@pytest.mark.parametrize(
    ("longest", "asked", "lives"),
    [
        (None, DAY_MS, HALF_AN_HOUR_MS),
        (None, 60_000, 60_000),
        (DAY_MS, DAY_MS, DAY_MS),
        (60_000, HALF_AN_HOUR_MS, 60_000),
    ],
)
def test_lifetime_is_cut_to_what_the_project_allows(
    of_policy: OfPolicy, longest: int | None, asked: int, lives: int
) -> None:
    """Without an error, and visible in `expires_at`. Half an hour, unless the operator allows another limit."""
    assert lives - SLACK_MS < lifetime_ms(of_policy(longest_lifetime_ms=longest), expires_in_millis=asked) <= lives


def test_lifetime_that_was_not_asked_for_is_cut_too(of_policy: OfPolicy) -> None:
    """The policy also limits the default."""
    assert lifetime_ms(of_policy(longest_lifetime_ms=60_000)) <= 60_000


def test_binding_can_be_required(of_policy: OfPolicy) -> None:
    """The refusal names the missing field; a bound session is accepted."""
    strict = of_policy(require_binding=True)
    answer = strict.post(INITIATE, json={}, headers=strict.client_headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "SCHEMA_ERROR")
    assert "$.code_challenge`" in answer.json()["error"]
    challenge = s256("v" * 43).decode()
    assert strict.post(INITIATE, json={"code_challenge": challenge}, headers=strict.client_headers).status_code == 200


def test_a_project_may_have_its_own_limit_of_an_address(of_policy: OfPolicy) -> None:
    """It replaces the relay's."""
    strict = of_policy(live_sessions_per_address=2)
    statuses = [strict.post(INITIATE, json={}, headers=strict.client_headers).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
