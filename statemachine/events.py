"""The events on the public stream: past tense, facts, never a secret. Fields are only ever added.

An entry is flat; its field names are those of CloudEvents 1.0 attributes, plus `version`, the session's.
"""

from datetime import UTC, datetime

import msgspec

from statemachine.machine import Decision
from statemachine.session import ClientFacts, Session, State

EVENT_SOURCE = "login-relay"


class SessionInitiated(msgspec.Struct, frozen=True):
    """A tool asked for a login."""

    project_id: str
    expires_in_millis: int
    client: ClientFacts


class SessionCompleted(msgspec.Struct, frozen=True):
    """A backend completed the login."""

    project_id: str
    minted_token_sha256: str | None = None
    """Hexadecimal; only for a token that the relay minted."""


class SessionConsumed(msgspec.Struct, frozen=True):
    """The tool received its refresh token."""

    project_id: str


class SessionExpired(msgspec.Struct, frozen=True):
    """The session's time ran out."""

    project_id: str
    state: State
    """The state it was in: `pending` (nobody completed it) or `completed` (nobody picked the token up)."""


Event = SessionInitiated | SessionCompleted | SessionConsumed | SessionExpired

EVENT_TYPES: dict[type[Event], str] = {
    SessionInitiated: "session.initiated",
    SessionCompleted: "session.completed",
    SessionConsumed: "session.consumed",
    SessionExpired: "session.expired",
}

_encoder = msgspec.json.Encoder()


def encode_event(event: Event) -> bytes:
    """Return an event's `data` field."""
    return _encoder.encode(event)


def event_for(session: Session, decision: Decision, *, minted_token_digest: str | None = None) -> Event | None:
    """Return the fact that a decision makes public; None if the session's state does not change."""
    match decision.target:
        case State.COMPLETED:
            return SessionCompleted(session.project_id, minted_token_digest)
        case State.CONSUMED:
            return SessionConsumed(session.project_id)
        case State.EXPIRED:
            return SessionExpired(session.project_id, session.state)
        case _:
            return None


def rfc3339(milliseconds: int) -> str:
    """Return a time (milliseconds since the epoch) as `2026-01-01T00:15:00.000Z`."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}Z"
