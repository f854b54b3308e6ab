"""A session: one login attempt, as decisions and stores know it."""

from enum import StrEnum
from typing import NamedTuple

import msgspec

from runtime.address import UNKNOWN_ADDRESS
from statemachine.lifecycle import Decision, State
from tokens.family import Opening


class Flow(StrEnum):
    """The interface by which a tool began its session, and by which alone it can go on."""

    CLI = "cli"
    """`/auth/cli`. Its tools never take a new refresh token, so theirs do not rotate."""
    DEVICE = "device"
    """RFC 8628. OAuth clients take the new refresh token of every refresh, so theirs rotate."""


class DeviceRequest(NamedTuple):
    """What an OAuth client asked for when it began a session."""

    client_id: str
    scope: str
    """Scopes of the project, separated by spaces (RFC 6749 §3.3); never empty."""


BY_ANONYMOUS = "\0"  # no scope has it (RFC 6749 §3.3)
"""Comes before the family of an anonymous subject, where the key of a login code has the scope of an OAuth client."""

MAX_FACT_LENGTH = 128  # characters
MAX_FACTS_BYTES = 256  # of all three in UTF-8: a session and its event keep them for each login that anybody starts


class ClientFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the tool says of itself, shown to the person who approves. Unverified."""

    client_name: str | None = None
    client_version: str | None = None
    hostname: str | None = None


class Session(msgspec.Struct, frozen=True):
    """What decisions need to know of a session. Times are milliseconds since the epoch, Redis time."""

    id: str
    project_id: str
    state: State
    version: int
    """1 when initiated, then exactly one more with every change of state."""
    deadline: int
    """A pending session expires here; a completed one can be consumed until here."""
    expires_at: int
    """The deadline it was initiated with."""
    login_subject: str | None = None
    """Who it was completed for, as the backend called them."""


class TimedSession(Session, frozen=True, kw_only=True):
    """A session, and what only its end needs: when it came into its state, and where its tool asked from."""

    since: int
    address: str = UNKNOWN_ADDRESS
    opens: Opening | None = None
    """The family of tokens that its hand-over opens."""


def is_overdue(session: Session, now: int) -> bool:
    """Whether the session's deadline has passed at `now` (milliseconds, Redis time)."""
    return now > session.deadline


def session_after(
    session: TimedSession,
    decision: Decision,
    now: int,
    pickup_window_ms: int,
    login_subject: str | None = None,
    opens: Opening | None = None,
) -> TimedSession:
    """Return the session as it is once `decision`, taken at `now`, is committed.

    A completion brings `login_subject` and what the hand-over `opens`.

    A session completed in time can be consumed until `max(expires_at, now + pickup_window_ms)`, however late it was.
    """
    if decision.target is None:
        return session
    after = msgspec.structs.replace(session, state=decision.target, version=session.version + 1, since=now)
    if decision.target is not State.COMPLETED:
        return after
    deadline = max(session.expires_at, now + pickup_window_ms)
    return msgspec.structs.replace(after, deadline=deadline, login_subject=login_subject, opens=opens)
