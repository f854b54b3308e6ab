"""The outcome of a command as its key holds it: `completed`, or `completed <fingerprint>` for a request with a key."""

from hmac import compare_digest
from typing import NamedTuple

from statemachine.lifecycle import Outcome


class KeptOutcome(NamedTuple):
    """The outcome of a command, and the request that asked for it."""

    outcome: Outcome
    fingerprint: str = ""
    """The request's. Empty if it had no Idempotency-Key, or if a process of an older version wrote the outcome."""

    @classmethod
    def read(cls, value: bytes) -> "KeptOutcome":
        """Return the outcome and the fingerprint in the value of an outcome key."""
        outcome, _, fingerprint = value.decode().partition(" ")
        return cls(Outcome(outcome), fingerprint)

    def is_of(self, fingerprint: str) -> bool:
        """Return whether a request with this fingerprint asked for it; True if one of the fingerprints is empty."""
        if not fingerprint or not self.fingerprint:
            return True
        return compare_digest(self.fingerprint, fingerprint)
