"""A family: all refresh tokens that came of one hand-over, as decisions and stores know it. Redis has their digests.

Times are milliseconds since the epoch, Redis time.
"""

from hmac import compare_digest
from typing import Literal

import msgspec

from tokens.commands import FamilyCommand, RefreshFamily, RevokeFamily, UpgradeFamily
from tokens.lifecycle import Condition, Decision, Outcome, State

LONGEST_IDLE_MS = LONGEST_LIFE_MS = 400 * 86_400_000  # bounds of the settings; a cut-off is kept as long

Flow = Literal["cli", "device", "server", "anonymous"]
"""How it was opened: by a login of the Stack dialect or of RFC 8628, by a backend, or without anybody."""


class Opening(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a completion says of the family that the hand-over of its token will open. No secret: digests."""

    family_digest: bytes
    token_digest: bytes
    """The digests of `runtime.codes.RefreshToken`, of the first token."""
    subject: str
    """Whose it is, in the backend's own terms; the session's id if the backend named nobody."""
    client_id: str
    idle_ms: int
    """It ends when it is not refreshed for so long."""
    life_ms: int
    """It ends so long after it was opened, however often it is refreshed."""
    flow: Flow = "cli"
    rotates: bool = False
    """Whether a refresh replaces the token. Tools of the Stack dialect never take a new one."""
    anonymous: bool = False
    scope: str = ""
    """Scopes, separated by spaces (RFC 6749 §3.3)."""
    audience: str = ""
    """What its access tokens are for (RFC 7519 §4.1.3), separated by spaces; empty: what the project says."""


_openings: msgspec.json.Decoder[Opening] = msgspec.json.Decoder(Opening)


def read_opening(data: bytes | str) -> Opening | None:
    """Return the opening in a session's record, None if there is none.

    Raises:
        msgspec.MsgspecError: this version cannot read it.

    """
    return _openings.decode(data) if data else None


class Family(msgspec.Struct, frozen=True):
    """What decisions and answers need to know of a family."""

    id: str
    project_id: str
    state: State
    version: int
    """1 when opened, then exactly one more with every rotation, upgrade and revocation."""
    subject: str
    client_id: str
    flow: Flow
    rotates: bool
    anonymous: bool
    scope: str
    audience: str
    family_digest: bytes
    current: bytes
    """The digest of the newest token."""
    previous: bytes
    """The digest of the one before; empty if there is none."""
    generation: int
    """Of the newest token; 0 for the first."""
    opened_at: int
    """When its login was completed, so that a log-out between approval and pick-up counts."""
    refreshed_at: int
    rotated_at: int
    """When the newest token was written; 0 for the first."""
    ends_at: int
    """When it ends, however often it is refreshed."""
    idle_ms: int
    client: bytes = b"{}"
    """What its tool said of itself, as JSON. Unverified."""
    cutoff: int | None = None
    """When its subject was last logged out everywhere; None if that is not remembered."""
    why: str = ""
    """Why it was revoked."""

    @property
    def dies_at(self) -> int:
        """When it ends unless it is refreshed."""
        return min(self.refreshed_at + self.idle_ms, self.ends_at)


def opened(family_id: str, project_id: str, opening: Opening, opened_at: int, now: int) -> Family:
    """Return the family that is opened at `now`, for a login that was completed at `opened_at`."""
    return Family(
        family_id,
        project_id,
        State.ACTIVE,
        1,
        opening.subject,
        opening.client_id,
        opening.flow,
        opening.rotates,
        opening.anonymous,
        opening.scope,
        opening.audience,
        opening.family_digest,
        opening.token_digest,
        b"",
        0,
        opened_at=opened_at,
        refreshed_at=now,
        rotated_at=0,
        ends_at=opened_at + opening.life_ms,
        idle_ms=opening.idle_ms,
    )


def is_overdue(family: Family, now: int) -> bool:
    """Return whether the family was idle for too long at `now`, or its whole life is over."""
    return now > family.dies_at


def is_logged_out(family: Family) -> bool:
    """Return whether its subject was logged out everywhere after it was opened, or in the same millisecond."""
    return family.cutoff is not None and family.opened_at <= family.cutoff


def is_alive(family: Family, now: int) -> bool:
    """Return whether its newest token opens doors at `now`. This is all that an introspection asks."""
    return family.state is State.ACTIVE and not is_overdue(family, now) and not is_logged_out(family)


def is_genuine(family: Family, family_digest: bytes) -> bool:
    """Return whether a token with this digest was ever one of the family. Compares in constant time."""
    return compare_digest(family.family_digest, family_digest)


def condition_of(family: Family, command: RevokeFamily | UpgradeFamily, now: int) -> Condition:
    """Return the condition under which a command that shows no token finds a family at `now`."""
    if is_overdue(family, now):
        return Condition.OVERDUE
    if isinstance(command, RevokeFamily):
        return Condition.ALIVE
    if is_logged_out(family):
        return Condition.LOGGED_OUT
    return Condition.ANONYMOUS if family.anonymous else Condition.NAMED


def condition_of_token(family: Family, generation: int, digest: bytes, now: int, grace_ms: int) -> Condition:
    """Return the condition under which a genuine token, of which Redis has the digest, finds its family at `now`.

    For `grace_ms` after a rotation, the token before may ask again.
    """
    if is_overdue(family, now):
        return Condition.OVERDUE
    if is_logged_out(family):
        return Condition.LOGGED_OUT
    if compare_digest(family.current, digest):
        return Condition.CURRENT if family.rotates else Condition.STATIC
    if generation > family.generation:
        return Condition.AHEAD
    if compare_digest(family.previous, digest) and now <= family.rotated_at + grace_ms:
        return Condition.PREVIOUS
    # A tool that lost its answer asks again and goes on, while a frozen worker still has its first command. That one is
    # recorded before the newest rotation, so it is no sign that somebody kept an old token.
    return Condition.OVERTAKEN if now < family.rotated_at else Condition.STALE


def family_after(family: Family, command: FamilyCommand, decision: Decision, now: int) -> Family:
    """Return the family as it is once `decision`, taken at `now`, is committed.

    Only `rotated_at` is later: the grace of a rotation begins with its commit, so that a token which asked several
    times while no worker ran is not stale when the first of its commands is committed at last.
    """
    if decision.target is None:
        return family
    family = msgspec.structs.replace(family, state=decision.target, version=family.version + 1)
    if decision.target is State.REVOKED:
        return msgspec.structs.replace(family, why=why_revoked(command, decision))
    if isinstance(command, RefreshFamily):
        return msgspec.structs.replace(
            family,
            current=command.successor_digest,
            previous=command.token_digest,
            generation=family.generation + 1,
            refreshed_at=now,
            rotated_at=now,
        )
    return msgspec.structs.replace(family, anonymous=False)


def why_revoked(command: FamilyCommand, decision: Decision) -> Literal["client", "server", "subject", "reuse"]:
    """Return why a decision revokes a family: who asked for it, or what was found."""
    if isinstance(command, RevokeFamily):
        return command.why
    return "reuse" if decision.outcome is Outcome.REUSED else "subject"
