"""The audit events: attacks, and changes to a project. They hold no secret.

Events that an attacker can cause are published at most once per window for the same cause, with a count, and at most
`MAX_PER_WINDOW` times for a project and type. So an attacker cannot fill the stream with them.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from projects.errors import InitiationBudget

MAX_PER_WINDOW = 100  # events of one type for one project; an attack that causes more is visible by then
MAX_USER_AGENT = 200  # characters

AuditedProjectId = Annotated[str, Meta(description="The project that it is about.")]
Address = Annotated[str, Meta(description="The client's address, as far as it is known.")]
UserAgent = (
    Annotated[
        str,
        Meta(max_length=MAX_USER_AGENT, description="What the client called itself, shortened. Unverified."),
    ]
    | None
)


class GuessRefused(msgspec.Struct, frozen=True, omit_defaults=True):
    """Wrong codes are answered with 429: a budget is used up."""

    project_id: AuditedProjectId
    code: Annotated[Literal["login", "polling", "refresh_token"], Meta(description="Which code was wrong.")]
    budget: Annotated[Literal["address", "key", "project"], Meta(description="Whose wrong codes were too many.")]
    wrong_codes: Annotated[
        int, Meta(ge=1, description="How many there were in this window. Told past the budget, and at each tenfold.")
    ]
    address: Address
    user_agent: UserAgent = None


class BindingFailed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A right polling code came without the right `code_verifier`: somebody else may have it."""

    project_id: AuditedProjectId
    address: Address
    user_agent: UserAgent = None


class PollThrottled(msgspec.Struct, frozen=True, omit_defaults=True):
    """A session was polled faster than its tool was told to, and answered with 429."""

    project_id: AuditedProjectId
    address: Address
    user_agent: UserAgent = None


class TokenReused(msgspec.Struct, frozen=True, omit_defaults=True):
    """A refresh token was used that had been replaced long ago: it was stolen, or its tool keeps a copy."""

    project_id: AuditedProjectId
    address: Address
    user_agent: UserAgent = None


class TokenRepeated(msgspec.Struct, frozen=True, omit_defaults=True):
    """A refresh token was used again right after it was replaced, and got the same successor."""

    project_id: AuditedProjectId
    address: Address
    user_agent: UserAgent = None


class InitiationRefused(msgspec.Struct, frozen=True, omit_defaults=True):
    """No session was made: a budget is used up."""

    project_id: AuditedProjectId
    budget: Annotated[InitiationBudget, Meta(description="Whose sessions were too many.")]
    address: Address
    user_agent: UserAgent = None


class KeyRotated(msgspec.Struct, frozen=True):
    """Keys of a project were replaced."""

    project_id: AuditedProjectId
    keys: Annotated[list[str], Meta(min_length=1, description="Which of the project's keys, by name.")]
    previous_valid_until: Annotated[str, Meta(description="When the replaced keys end: RFC 3339, UTC.")]


class ProjectChanged(msgspec.Struct, frozen=True, omit_defaults=True):
    """A project was created, updated or deleted."""

    project_id: AuditedProjectId
    change: Literal["created", "updated", "deleted"]
    name: Annotated[str, Meta(description="What the project is called.")]
    allow_client_complete: Annotated[bool, Meta(description="Whether the publishable key may complete logins.")]
    allowed_origins: Annotated[list[str], Meta(description="The web origins that may call the API for it.")]
    longest_lifetime_millis: (
        Annotated[int, Meta(ge=1, description="How long its sessions may live. Absent: as the relay's setting says.")]
        | None
    ) = None
    require_binding: Annotated[bool, Meta(description="Whether its sessions must have a `code_challenge`.")] = False
    live_sessions_per_address: (
        Annotated[
            int,
            Meta(ge=1, description="Live sessions of one client address. Absent: as the relay's setting says."),
        ]
        | None
    ) = None
    refresh_token_idle_millis: (
        Annotated[
            int,
            Meta(ge=1, description="Minted refresh tokens end if not used for so long. Absent: as the setting says."),
        ]
        | None
    ) = None
    refresh_token_life_millis: (
        Annotated[int, Meta(ge=1, description="The same, however often they are used. Absent: as the setting says.")]
        | None
    ) = None
    oauth: Annotated[bool, Meta(description="Whether any OAuth client may start logins, without a key.")] = False
    verification_uri: (
        Annotated[str, Meta(description="The page to which OAuth clients send their users. Absent: there is none.")]
        | None
    ) = None
    claim_anonymous: Annotated[
        bool, Meta(description="Whether backends may take over the anonymous session of a tool by the login code.")
    ] = False


Refusal = GuessRefused | BindingFailed | PollThrottled | TokenReused | TokenRepeated | InitiationRefused
"""The events that an attacker can cause."""
AuditEvent = Refusal | KeyRotated | ProjectChanged

AUDIT_TYPES: dict[type[msgspec.Struct], str] = {
    GuessRefused: "audit.guess_refused",
    BindingFailed: "audit.binding_failed",
    PollThrottled: "audit.poll_throttled",
    TokenReused: "audit.token_reused",
    TokenRepeated: "audit.token_repeated",
    InitiationRefused: "audit.initiation_refused",
    KeyRotated: "audit.key_rotated",
    ProjectChanged: "audit.project_changed",
}
