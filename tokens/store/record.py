"""A family as the fields of its hash in Redis."""

from collections.abc import Sequence

import msgspec

from tokens.errors import UnreadableFamilyError
from tokens.family import Family

Fields = list[str | bytes | int]
"""Names and values, in turn."""

_NAMES = tuple(name for name in Family.__struct_fields__ if name not in {"id", "cutoff"})
"""Fields are only ever added, each with a default."""
_BYTES = frozenset({"family_digest", "current", "previous", "client"})


def field_names() -> tuple[str, ...]:
    """Return the names of the hash's fields, in the order in which `read` takes their values."""
    return _NAMES


def written(family: Family, before: Family | None = None) -> Fields:
    """Return the fields of a family; only those that differ from `before`, if it is given."""
    fields: Fields = []
    for name in _NAMES:
        value = getattr(family, name)
        if name == "client" and before is None:
            continue  # written by the script that hands over the token
        if before is None or value != getattr(before, name):
            fields += (name, int(value) if isinstance(value, bool) else value)
    return fields


def read(family_id: str, values: Sequence[bytes | None]) -> Family | UnreadableFamilyError | None:
    """Return the family with these values of `field_names`; None if there is none.

    The error is returned, not raised, so that others can still be read.
    """
    found = {
        name: value if name in _BYTES else value.decode(errors="replace")
        for name, value in zip(_NAMES, values, strict=True)
        if value is not None
    }
    if not found:
        return None
    try:
        return msgspec.convert({"id": family_id, **found}, Family, strict=False)
    except msgspec.ValidationError:
        return UnreadableFamilyError()
