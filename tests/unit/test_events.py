from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.cloud_event import encode_event
from projects.audit_events import (
    BindingFailed,
    GuessRefused,
    InitiationRefused,
    KeyRotated,
    PollThrottled,
    ProjectChanged,
    TokenRepeated,
    TokenReused,
)
from runtime.clock import rfc3339
from statemachine.events import (
    EVENT_TYPES,
    Event,
    SessionCancelled,
    SessionCompleted,
    SessionConsumed,
    SessionDenied,
    SessionExpired,
    SessionInitiated,
)
from statemachine.lifecycle import State
from statemachine.session import ClientFacts
from tokens.events import FamilyOpened, FamilyRevoked, SubjectLoggedOut

GOLDEN: list[tuple[Event, str, bytes]] = [
    (
        SessionInitiated("p", 1, ClientFacts("tool", "1.2", "laptop")),
        "session.initiated",
        b'{"project_id":"p","expires_in_millis":1,"client":{"client_name":"tool","client_version":"1.2","hostname":"laptop"}}',
    ),
    (
        SessionInitiated("p", 1_000, ClientFacts()),
        "session.initiated",
        b'{"project_id":"p","expires_in_millis":1000,"client":{}}',
    ),
    (
        SessionCompleted("p", "ab12"),
        "session.completed",
        b'{"project_id":"p","minted_token_sha256":"ab12"}',
    ),
    (SessionCompleted("p"), "session.completed", b'{"project_id":"p"}'),
    (SessionCompleted("p", None, "ada"), "session.completed", b'{"project_id":"p","login_subject":"ada"}'),
    (SessionConsumed("p", "ada"), "session.consumed", b'{"project_id":"p","login_subject":"ada"}'),
    (
        SessionDenied("p", "not_me", State.PENDING),
        "session.denied",
        b'{"project_id":"p","reason":"not_me","state":"pending"}',
    ),
    (
        SessionDenied("p", "declined", State.COMPLETED, "ada"),
        "session.denied",
        b'{"project_id":"p","reason":"declined","state":"completed","login_subject":"ada"}',
    ),
    (
        SessionCancelled("p", State.PENDING),
        "session.cancelled",
        b'{"project_id":"p","state":"pending"}',
    ),
    (
        SessionCancelled("p", State.COMPLETED, "ada"),
        "session.cancelled",
        b'{"project_id":"p","state":"completed","login_subject":"ada"}',
    ),
    (SessionExpired("p", State.PENDING), "session.expired", b'{"project_id":"p","state":"pending"}'),
    (
        SessionExpired("p", State.COMPLETED, "ada"),
        "session.expired",
        b'{"project_id":"p","state":"completed","login_subject":"ada"}',
    ),
    (
        GuessRefused("p", "login", "key", 101, "192.0.2.1", "tool/1"),
        "audit.guess_refused",
        b'{"project_id":"p","code":"login","budget":"key","wrong_codes":101,"address":"192.0.2.1","user_agent":"tool/1"}',
    ),
    (
        BindingFailed("p", "192.0.2.1"),
        "audit.binding_failed",
        b'{"project_id":"p","address":"192.0.2.1"}',
    ),
    (
        PollThrottled("p", "192.0.2.1", "tool/1"),
        "audit.poll_throttled",
        b'{"project_id":"p","address":"192.0.2.1","user_agent":"tool/1"}',
    ),
    (
        InitiationRefused("p", "live_sessions", "192.0.2.1"),
        "audit.initiation_refused",
        b'{"project_id":"p","budget":"live_sessions","address":"192.0.2.1"}',
    ),
    (
        FamilyOpened("p", "device", rotates=True, scope="read write", login_subject="ada"),
        "family.opened",
        b'{"project_id":"p","flow":"device","rotates":true,"scope":"read write","login_subject":"ada"}',
    ),
    (
        FamilyOpened("p", "cli", rotates=False),
        "family.opened",
        b'{"project_id":"p","flow":"cli","rotates":false}',
    ),
    (
        FamilyRevoked("p", "reuse", "ada"),
        "family.revoked",
        b'{"project_id":"p","why":"reuse","login_subject":"ada"}',
    ),
    (
        SubjectLoggedOut("p", "ada"),
        "subject.logged_out",
        b'{"project_id":"p","login_subject":"ada"}',
    ),
    (
        TokenReused("p", "192.0.2.1", "tool/1"),
        "audit.token_reused",
        b'{"project_id":"p","address":"192.0.2.1","user_agent":"tool/1"}',
    ),
    (
        TokenRepeated("p", "192.0.2.1"),
        "audit.token_repeated",
        b'{"project_id":"p","address":"192.0.2.1"}',
    ),
    (
        KeyRotated("p", ["secret_server_key"], "2026-01-01T00:15:00.000Z"),
        "audit.key_rotated",
        b'{"project_id":"p","keys":["secret_server_key"],"previous_valid_until":"2026-01-01T00:15:00.000Z"}',
    ),
    (
        ProjectChanged("p", "updated", "acme", allow_client_complete=True, allowed_origins=["https://a.example"]),
        "audit.project_changed",
        (
            b'{"project_id":"p","change":"updated","name":"acme","allow_client_complete":true,'
            b'"allowed_origins":["https://a.example"]}'
        ),
    ),
    (
        ProjectChanged(
            *("p", "created", "acme"),
            allow_client_complete=False,
            allowed_origins=[],
            longest_lifetime_millis=60_000,
            require_binding=True,
            live_sessions_per_address=10,
            refresh_token_idle_millis=1,
            refresh_token_life_millis=2,
            oauth=True,
            verification_uri="https://app.example/device",
        ),
        "audit.project_changed",
        (
            b'{"project_id":"p","change":"created","name":"acme","allow_client_complete":false,"allowed_origins":[],'
            b'"longest_lifetime_millis":60000,"require_binding":true,"live_sessions_per_address":10,'
            b'"refresh_token_idle_millis":1,"refresh_token_life_millis":2,'
            b'"oauth":true,"verification_uri":"https://app.example/device"}'
        ),
    ),
]


@pytest.mark.parametrize(("event", "name", "data"), GOLDEN)
def test_event_is_these_bytes(event: Event, name: str, data: bytes) -> None:
    """Others read these events: their types and bytes may gain fields and never change."""
    assert EVENT_TYPES[type(event)] == name
    assert encode_event(event) == data


def test_every_event_has_a_type_and_golden_bytes() -> None:
    """No event is missing above or in the table of types."""
    assert set(get_args(Event)) == set(EVENT_TYPES) == {type(event) for event, _, _ in GOLDEN}


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_767_226_500_000, "2026-01-01T00:15:00.000Z"),
        (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
        (1_709_164_800_001, "2024-02-29T00:00:00.001Z"),
        (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
    ],
)
def test_time_is_written_in_rfc3339(milliseconds: int, text: str) -> None:
    """UTC, milliseconds, `Z` (docs/wire.md 3)."""
    assert rfc3339(milliseconds) == text


@given(st.integers(0, 10**13))
def test_time_loses_no_millisecond(milliseconds: int) -> None:
    """Reading a written time gives the same millisecond back."""
    moment = datetime.fromisoformat(rfc3339(milliseconds))
    assert moment - datetime(1970, 1, 1, tzinfo=UTC) == timedelta(milliseconds=milliseconds)
