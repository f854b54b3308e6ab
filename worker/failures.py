"""What may go wrong with one entry of a batch."""

from typing import NamedTuple

from statemachine.store.command_stream import Entry

MAX_ATTEMPTS = 3  # decisions per entry on conflict; then it stays pending for the reclaimer


class Failure(NamedTuple):
    """An entry that stays pending."""

    entry: Entry
    reason: str
    is_poison: bool
    """Whether the entry itself is at fault; if not, Redis is, or another worker was faster three times."""
