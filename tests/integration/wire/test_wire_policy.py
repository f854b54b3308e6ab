"""What a project asks of its sessions (docs/wire.md 3)."""

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
    """Return a client of the service with a project of this policy."""
    with ExitStack() as stack:

        def client(**policy: object) -> Wire:
            made = create_project(wire.service.settings, f"p-{uuid.uuid4().hex[:8]}", policy=Policy(**policy))  # type: ignore[arg-type] # each test names its own
            project = Wire(wire.service, asyncio.run(made))
            stack.enter_context(project.client)
            return project

        yield client


def lifetime_ms(wire: Wire, **body: object) -> float:
    """Return how long a session may live, as its tool is told."""
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
    """Without an error: `expires_at` says so. Half an hour, unless its operator allowed another."""
    assert lives - SLACK_MS < lifetime_ms(of_policy(longest_lifetime_ms=longest), expires_in_millis=asked) <= lives


def test_lifetime_that_was_not_asked_for_is_cut_too(of_policy: OfPolicy) -> None:
    """The default is no way round the policy."""
    assert lifetime_ms(of_policy(longest_lifetime_ms=60_000)) <= 60_000


def test_binding_can_be_required(of_policy: OfPolicy) -> None:
    """The refusal names the field that is missing; a bound session is made."""
    strict = of_policy(require_binding=True)
    answer = strict.post(INITIATE, json={}, headers=strict.client_headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "SCHEMA_ERROR")
    assert "$.code_challenge`" in answer.json()["error"]
    challenge = s256("v" * 43).decode()
    assert strict.post(INITIATE, json={"code_challenge": challenge}, headers=strict.client_headers).status_code == 200


def test_a_project_may_have_its_own_limit_of_an_address(of_policy: OfPolicy) -> None:
    """In place of the relay's."""
    strict = of_policy(live_sessions_per_address=2)
    statuses = [strict.post(INITIATE, json={}, headers=strict.client_headers).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
