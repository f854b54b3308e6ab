"""The outcome of a command as its key holds it: `completed`, or `completed <fingerprint>` for a request with a key."""

from hmac import compare_digest
from typing import NamedTuple

from statemachine.lifecycle import Outcome


class KeptOutcome(NamedTuple):
    """What became of a command, and which request asked for it."""

    outcome: Outcome
    fingerprint: str = ""
    """Of that request. Empty if it had no Idempotency-Key, or if a process of an older version wrote the outcome."""

    @classmethod
    def read(cls, value: bytes) -> "KeptOutcome":
        """Return what the value of an outcome key says."""
        outcome, _, fingerprint = value.decode().partition(" ")
        return cls(Outcome(outcome), fingerprint)

    def is_of(self, fingerprint: str) -> bool:
        """Whether a request with this fingerprint asked for it, as far as that is known."""
        if not fingerprint or not self.fingerprint:
            return True
        return compare_digest(self.fingerprint, fingerprint)
