"""A place in the public streams: for each partition, the entry after which to continue."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NamedTuple

import msgspec

MAX_SEQUENCE = 2**64 - 1  # Redis' ids are pairs of 64-bit numbers


class EntryId(NamedTuple):
    """The id of a stream entry."""

    milliseconds: int
    """When it was written, by Redis' clock."""
    sequence: int

    @classmethod
    def parse(cls, text: str) -> "EntryId":
        """Return the id in a text `milliseconds-sequence`.

        Raises:
            ValueError: the text is not a valid id.

        """
        milliseconds, _, sequence = text.partition("-")
        return cls(int(milliseconds), int(sequence))

    def __str__(self) -> str:
        return f"{self.milliseconds}-{self.sequence}"


START = EntryId(0, 0)
END = EntryId(MAX_SEQUENCE, MAX_SEQUENCE)


Cursor = tuple[EntryId, ...]
"""A place in the log: for each partition, the entry after which to continue."""


_numbers = msgspec.msgpack.Decoder(list[int])


def encode_cursor(cursor: Cursor) -> str:
    """Return a cursor as a short text for `decode_cursor`, opaque to its holder."""
    newest = max(id_.milliseconds for id_ in cursor)
    numbers = [newest]
    for id_ in cursor:
        numbers += (newest - id_.milliseconds, id_.sequence)
    return urlsafe_b64encode(msgspec.msgpack.encode(numbers)).rstrip(b"=").decode()


def decode_cursor(text: str, partitions: int) -> Cursor | None:
    """Return the cursor in a text; None if it is not a valid cursor for this number of partitions."""
    try:
        newest, *pairs = _numbers.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, msgspec.MsgspecError):
        return None
    cursor = tuple(EntryId(newest - age, sequence) for age, sequence in zip(pairs[::2], pairs[1::2], strict=False))
    if len(pairs) != 2 * partitions or not all(0 <= number <= MAX_SEQUENCE for id_ in cursor for number in id_):
        return None
    return cursor if encode_cursor(cursor) == text else None


def last_before(milliseconds: int) -> EntryId:
    """Return the highest id of entries written before a time."""
    return EntryId(milliseconds - 1, MAX_SEQUENCE) if milliseconds > 0 else START
