"""The events about families on the public stream: past tense, facts, never a secret. Fields are only ever added."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tokens.commands import FamilyCommand
from tokens.family import Family, Flow, why_revoked
from tokens.lifecycle import Decision, State

FamilyProjectId = Annotated[str, Meta(description="The project that the family of tokens belongs to.")]
TokenSubject = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        description="Whose tokens they are, in the words of the backend. Absent if it named nobody.",
    ),
]


class FamilyOpened(msgspec.Struct, frozen=True, omit_defaults=True):
    """A refresh token of the relay's own was handed over, and opens doors from now on."""

    project_id: FamilyProjectId
    flow: Annotated[
        Flow, Meta(description="How: cli (the Stack dialect), device (RFC 8628), server (by a backend) or anonymous.")
    ]
    rotates: Annotated[bool, Meta(description="Whether each refresh replaces the refresh token.")]
    scope: Annotated[str, Meta(description="The scopes of its access tokens, separated by spaces.")] = ""
    login_subject: TokenSubject | None = None


class FamilyRevoked(msgspec.Struct, frozen=True, omit_defaults=True):
    """None of the refresh tokens of a login opens anything any more."""

    project_id: FamilyProjectId
    why: Annotated[
        Literal["client", "server", "subject", "reuse"],
        Meta(
            description="client (the tool asked), server (the backend or an operator asked), subject (logged out "
            "everywhere; published when a token is used after it) or reuse (an old token was used: it was stolen, or "
            "its tool keeps a copy)."
        ),
    ]
    login_subject: TokenSubject | None = None


class SubjectLoggedOut(msgspec.Struct, frozen=True):
    """A subject was logged out everywhere: what was handed over for it until then opens nothing any more."""

    project_id: FamilyProjectId
    login_subject: TokenSubject


TokenEvent = FamilyOpened | FamilyRevoked | SubjectLoggedOut

TOKEN_EVENT_TYPES: dict[type[msgspec.Struct], str] = {
    FamilyOpened: "family.opened",
    FamilyRevoked: "family.revoked",
    SubjectLoggedOut: "subject.logged_out",
}


def named_subject(family: Family) -> str | None:
    """Return whose the family is; None if its backend named nobody, so that its subject is its own id."""
    return None if family.subject == family.id else family.subject


def opened_event(family: Family) -> FamilyOpened:
    """Return the fact that a family was opened."""
    return FamilyOpened(family.project_id, family.flow, family.rotates, family.scope, named_subject(family))


def event_for(before: Family, after: Family, command: FamilyCommand, decision: Decision) -> FamilyRevoked | None:
    """Return the fact that a decision makes public; None for all but a revocation: a refresh is counted only."""
    if after.state is before.state or after.state is not State.REVOKED:
        return None
    return FamilyRevoked(after.project_id, why_revoked(command, decision), named_subject(after))


def event_id(family: Family) -> str:
    """Return the id of the event of a family's latest change. Session ids are taken: a family has its session's."""
    return f"{family.id}.family.{family.version}"
