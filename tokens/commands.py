"""The commands for families on the inbound stream: imperative, one entry each, JSON. Fields are only ever added.

They travel on the same stream as those for sessions, and the same workers decide them.
"""

from typing import ClassVar, Literal

import msgspec

from tokens.lifecycle import Trigger


class RefreshFamily(msgspec.Struct, frozen=True, tag="RefreshFamily"):
    """Give the tool that shows a token of the family its successor."""

    trigger: ClassVar[Trigger] = Trigger.REFRESH
    id: str
    """Random: the table is idempotent by itself."""
    family_id: str
    reply_to: str
    """The API process that waits, as in `Keys.replies`."""
    patience: int
    """Milliseconds after its recording in which a rotation may be committed. Later nobody waits for the successor any
    more, so the token that the tool has stays the newest."""
    generation: int
    """Of the token that is shown."""
    family_digest: bytes
    token_digest: bytes
    successor_digest: bytes
    """Of the token that becomes the newest, if this command rotates."""
    sealed_successor: bytes
    """That token, sealed to the one that is shown (`tokens.sealing`)."""
    request_id: str | None = None
    traceparent: str | None = None


class RevokeFamily(msgspec.Struct, frozen=True, tag="RevokeFamily"):
    """End a family before its time."""

    trigger: ClassVar[Trigger] = Trigger.REVOKE
    id: str
    family_id: str
    reply_to: str
    why: Literal["client", "server"]
    """Who asked: the tool with one of its tokens, or the backend."""
    request_id: str | None = None
    traceparent: str | None = None


class UpgradeFamily(msgspec.Struct, frozen=True, tag="UpgradeFamily"):
    """Note that the anonymous subject of a family became somebody. The subject itself stays as it is."""

    trigger: ClassVar[Trigger] = Trigger.UPGRADE
    id: str
    family_id: str
    reply_to: str
    request_id: str | None = None
    traceparent: str | None = None


FamilyCommand = RefreshFamily | RevokeFamily | UpgradeFamily
