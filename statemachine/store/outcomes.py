"""The outcome of a command as its key holds it: `completed`, or `completed <fingerprint>` for a request with a key."""

from hmac import compare_digest
from typing import NamedTuple

from statemachine.lifecycle import Outcome
from tokens.lifecycle import Outcome as FamilyOutcome

AnyOutcome = Outcome | FamilyOutcome
"""Of a command for a session, or for a family of tokens. What both can have, such as `pending`, has one word."""

_OF_SESSIONS = frozenset(outcome.value for outcome in Outcome)


def outcome_named(word: str) -> AnyOutcome:
    """Return the outcome with this word; of a word that both lifecycles have, that of a session.

    Raises:
        ValueError: there is no such outcome.

    """
    return Outcome(word) if word in _OF_SESSIONS else FamilyOutcome(word)


class KeptOutcome(NamedTuple):
    """The outcome of a command, and the request that asked for it."""

    outcome: AnyOutcome
    fingerprint: str = ""
    """The request's. Empty if it had no Idempotency-Key, or if a process of an older version wrote the outcome."""

    @classmethod
    def read(cls, value: bytes) -> "KeptOutcome":
        """Return the outcome and the fingerprint in the value of an outcome key."""
        outcome, _, fingerprint = value.decode().partition(" ")
        return cls(outcome_named(outcome), fingerprint)

    def is_of(self, fingerprint: str) -> bool:
        """Return whether a request with this fingerprint asked for it; True if one of the fingerprints is empty."""
        if not fingerprint or not self.fingerprint:
            return True
        return compare_digest(self.fingerprint, fingerprint)
