"""The commands on the inbound stream: imperative, one entry each, JSON. Fields are only ever added.

A worker of an older version ignores fields it does not know; a command type it does not know stays pending for a
worker that does.
"""

from typing import ClassVar, Literal

import msgspec

from statemachine.lifecycle import Trigger
from tokens.commands import FamilyCommand
from tokens.family import Opening


class CompleteSession(msgspec.Struct, frozen=True, tag="CompleteSession"):
    """Give a pending session its refresh token."""

    trigger: ClassVar[Trigger] = Trigger.COMPLETE
    id: str
    """Names its outcome; follows from the Idempotency-Key where there is one."""
    session_id: str
    reply_to: str
    """The API process that waits, as in `Keys.replies`."""
    sealed_token: bytes
    """The refresh token, sealed to the session's poller (see `statemachine.sealing`)."""
    minted_token_digest: str | None = None
    """SHA-256, hexadecimal, of a token that the relay minted, so that the backend can recognise it later."""
    login_subject: str | None = None
    """Who the login is for, in the backend's own terms; no secret, published in events."""
    request_id: str | None = None
    """The HTTP request that asked for it, for logs."""
    traceparent: str | None = None
    """Its span (W3C Trace Context §3.2); None if it is not traced."""
    opens: Opening | None = None
    """The family of tokens that the hand-over opens; None if the token is not one of the relay's own."""


class ConsumeSession(msgspec.Struct, frozen=True, tag="ConsumeSession"):
    """Hand a completed session's token to the poller that asks."""

    trigger: ClassVar[Trigger] = Trigger.CONSUME
    id: str
    session_id: str
    reply_to: str
    patience: int
    """Milliseconds after its recording in which the command may be committed. Later nobody waits for the token any
    more, so the session stays completed for the next poll."""
    request_id: str | None = None
    traceparent: str | None = None


DenialReason = Literal["declined", "not_me", "reported"]
"""The person declined; did not begin this login; or takes it for an attack and reports it."""


class DenySession(msgspec.Struct, frozen=True, tag="DenySession"):
    """End a session that is not to be; a token that nobody has picked up is deleted."""

    trigger: ClassVar[Trigger] = Trigger.DENY
    id: str
    session_id: str
    reply_to: str
    reason: DenialReason
    request_id: str | None = None
    traceparent: str | None = None


class CancelSession(msgspec.Struct, frozen=True, tag="CancelSession"):
    """End a session whose tool waits for it no longer."""

    trigger: ClassVar[Trigger] = Trigger.CANCEL
    id: str
    session_id: str
    reply_to: str
    request_id: str | None = None
    traceparent: str | None = None


class ExpireSession(msgspec.Struct, frozen=True, tag="ExpireSession"):
    """End a pending session before its time, for an operator."""

    trigger: ClassVar[Trigger] = Trigger.EXPIRE
    id: str
    session_id: str
    reply_to: str
    request_id: str | None = None
    traceparent: str | None = None


Command = CompleteSession | ConsumeSession | DenySession | CancelSession | ExpireSession
AnyCommand = Command | FamilyCommand
"""What can stand on the stream."""

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)


def encode_command(command: AnyCommand) -> bytes:
    """Return the command as it stands in its stream entry."""
    return _encoder.encode(command)


def decode_command(data: bytes) -> AnyCommand:
    """Read a command from its stream entry.

    Raises:
        msgspec.MsgspecError: these bytes are no command that this version knows.

    """
    return _decoder.decode(data)
