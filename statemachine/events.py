"""The events on the public stream: past tense, facts, never a secret. Fields are only ever added.

An entry of the stream is flat: its fields are attributes of CloudEvents 1.0, `data` as JSON, and `version`, the
session's. `docs/events.md` is the contract with their readers; its schemas are generated from this file.
"""

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from projects.audit_events import AUDIT_TYPES, AuditEvent
from statemachine.commands import Command, CompleteSession, DenialReason, DenySession
from statemachine.lifecycle import State
from statemachine.session import ClientFacts, Session
from tokens.events import TOKEN_EVENT_TYPES, TokenEvent

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


class SessionDenied(msgspec.Struct, frozen=True, omit_defaults=True):
    """The person, or the backend for them, denied the login."""

    project_id: ProjectId
    reason: Annotated[
        DenialReason,
        Meta(description="declined, not_me (the person did not begin it) or reported (as an attack)."),
    ]
    state: Annotated[State, Meta(description="What it was: pending, or completed (its token was taken back).")]
    login_subject: LoginSubject = None


class SessionCancelled(msgspec.Struct, frozen=True, omit_defaults=True):
    """The tool gave the login up."""

    project_id: ProjectId
    state: Annotated[State, Meta(description="What it was: pending, or completed (its token was deleted).")]
    login_subject: LoginSubject = None


class SessionExpired(msgspec.Struct, frozen=True, omit_defaults=True):
    """The session's time ran out."""

    project_id: ProjectId
    state: Annotated[
        State, Meta(description="What it was: pending (nobody completed it) or completed (nobody took the token).")
    ]
    login_subject: LoginSubject = None


SessionEvent = SessionInitiated | SessionCompleted | SessionConsumed | SessionDenied | SessionCancelled | SessionExpired
Event = SessionEvent | TokenEvent | AuditEvent

FACT_OF: Mapping[State, type[SessionEvent]] = {
    State.PENDING: SessionInitiated,
    State.COMPLETED: SessionCompleted,
    State.CONSUMED: SessionConsumed,
    State.DENIED: SessionDenied,
    State.CANCELLED: SessionCancelled,
    State.EXPIRED: SessionExpired,
}
"""What becomes public when a session comes into a state."""

EVENT_TYPES: Mapping[type[msgspec.Struct], str] = {
    **{fact: f"session.{state}" for state, fact in FACT_OF.items()},
    SessionInitiated: "session.initiated",  # named for the request, not for the state
    **TOKEN_EVENT_TYPES,
    **AUDIT_TYPES,
}

STATE_AFTER: Mapping[str, State] = {EVENT_TYPES[fact]: state for state, fact in FACT_OF.items()}
"""The state of a session after an event, by the type of the event; audit events are not in it."""


def event_for(before: Session, after: Session, command: Command | None = None) -> SessionEvent | None:
    """Return the fact that a decision makes public; None if the session's state does not change.

    `command` is what was decided on; None if it was the deadline.
    """
    if after.version == before.version:
        return None
    project_id, login_subject = after.project_id, after.login_subject
    fact: SessionEvent
    match after.state, command:
        case State.COMPLETED, CompleteSession(minted_token_digest=digest):
            fact = SessionCompleted(project_id, digest, login_subject)
        case State.CONSUMED, _:
            fact = SessionConsumed(project_id, login_subject)
        case State.DENIED, DenySession(reason=reason):
            fact = SessionDenied(project_id, reason, before.state, login_subject)
        case State.CANCELLED, _:
            fact = SessionCancelled(project_id, before.state, login_subject)
        case State.EXPIRED, _:
            fact = SessionExpired(project_id, before.state, login_subject)
        case _:
            raise TypeError(f"no fact says how {type(command).__name__} leads from {before.state} to {after.state}")
    return fact
