"""The events on the public stream: past tense, facts, never a secret. Fields are only ever added.

An entry of the stream is flat: its fields are attributes of CloudEvents 1.0, `data` as JSON, and `version`, the
session's. `docs/events.md` is the contract with whoever reads them; its schemas are generated from this file.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from statemachine.audit_events import (
    AuditEvent,
    BindingFailed,
    GuessRefused,
    InitiationRefused,
    KeyRotated,
    PollThrottled,
    ProjectChanged,
)
from statemachine.session import ClientFacts, Session, State

EVENT_SOURCE = "login-relay"

ProjectId = Annotated[str, Meta(description="The project that the session belongs to.")]
LoginSubject = (
    Annotated[
        str,
        Meta(
            min_length=1,
            max_length=256,
            description="Who the login is for, in the words of the backend that completed it: the `subject` of its "
            "complete request. Not the attribute `subject`, which is the session id.",
        ),
    ]
    | None
)


class SessionInitiated(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool asked for a login."""

    project_id: ProjectId
    expires_in_millis: Annotated[int, Meta(ge=1, description="How long the session lives unless it is completed.")]
    client: Annotated[ClientFacts, Meta(description="What the tool says of itself. Unverified.")]


class SessionCompleted(msgspec.Struct, frozen=True, omit_defaults=True):
    """A backend completed the login."""

    project_id: ProjectId
    minted_token_sha256: (
        Annotated[
            str,
            Meta(
                pattern=r"^[0-9a-f]{64}$",
                description="SHA-256 of the refresh token, for the backend to recognise it later. Only of a token "
                "that the relay minted: one that was brought could be guessed from its digest.",
            ),
        ]
        | None
    ) = None
    login_subject: LoginSubject = None


class SessionConsumed(msgspec.Struct, frozen=True, omit_defaults=True):
    """The tool received its refresh token."""

    project_id: ProjectId
    login_subject: LoginSubject = None


class SessionExpired(msgspec.Struct, frozen=True, omit_defaults=True):
    """The session's time ran out."""

    project_id: ProjectId
    state: Annotated[
        State, Meta(description="What it was: pending (nobody completed it) or completed (nobody took the token).")
    ]
    login_subject: LoginSubject = None


Event = SessionInitiated | SessionCompleted | SessionConsumed | SessionExpired | AuditEvent

EVENT_TYPES: dict[type[Event], str] = {
    SessionInitiated: "session.initiated",
    SessionCompleted: "session.completed",
    SessionConsumed: "session.consumed",
    SessionExpired: "session.expired",
    GuessRefused: "audit.guess_refused",
    BindingFailed: "audit.binding_failed",
    PollThrottled: "audit.poll_throttled",
    InitiationRefused: "audit.initiation_refused",
    KeyRotated: "audit.key_rotated",
    ProjectChanged: "audit.project_changed",
}


class CloudEvent(msgspec.Struct, frozen=True):
    """An event with its attributes, in the JSON format of CloudEvents 1.0. In a stream entry all values are strings."""

    specversion: Literal["1.0"]
    id: Annotated[
        str,
        Meta(
            pattern=r"^([0-9a-f]{26}\.[0-9]+|[0-9a-f]{32})$",
            description="Unique, to drop repeats by: session id and version; of `audit.` events, random.",
        ),
    ]
    source: Annotated[str, Meta(min_length=1, description="The relay.")]
    type: Annotated[str, Meta(description="What happened.")]
    subject: Annotated[
        str,
        Meta(
            pattern=r"^([0-9a-f]{26}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$",
            description="The session id; of an `audit.` event that is about no session, the project id.",
        ),
    ]
    time: Annotated[
        str,
        Meta(
            pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
            description="When it happened, by Redis' clock: RFC 3339, UTC, milliseconds.",
            extra_json_schema={"format": "date-time"},
        ),
    ]
    data: Annotated[msgspec.Raw, Meta(description="What is told of it, by `type`.")]
    version: (
        Annotated[
            int,
            Meta(
                ge=1,
                description="The session's version: 1 when initiated, then exactly one more with every `session.` "
                "event. Not in `audit.` events.",
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET


_encoder = msgspec.json.Encoder()


def encode_event(event: Event) -> bytes:
    """Return an event's `data` field."""
    return _encoder.encode(event)


def event_for(before: Session, after: Session, *, minted_token_digest: str | None = None) -> Event | None:
    """Return the fact that a decision makes public; None if the session's state does not change."""
    if after.version == before.version:
        return None
    match after.state:
        case State.COMPLETED:
            return SessionCompleted(after.project_id, minted_token_digest, after.login_subject)
        case State.CONSUMED:
            return SessionConsumed(after.project_id, after.login_subject)
        case State.EXPIRED:
            return SessionExpired(after.project_id, before.state, after.login_subject)
        case State.PENDING:
            return None


def rfc3339(milliseconds: int) -> str:
    """Return a time (milliseconds since the epoch) as `2026-01-01T00:15:00.000Z`."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{milliseconds:03d}Z"
