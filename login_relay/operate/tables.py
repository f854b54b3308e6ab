"""Tables and ages, as the operator's commands print them for people."""

from collections.abc import Sequence

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000  # milliseconds


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table as text. Each column is as wide as its widest cell, and numbers are right-aligned."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in (head, *cells)) for column in range(len(head))]
    numeric = [bool(rows) and all(isinstance(row[column], int) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in (head, *cells)
    )


def age(milliseconds: int | None) -> str:
    """Return a duration as people write it: `340 ms`, `4.2 s`, `12 min`, `3 h`, `5 d`; a dash for None."""
    if milliseconds is None:
        return "-"
    if milliseconds < SECOND:
        return f"{milliseconds} ms"
    if milliseconds < MINUTE:
        return f"{milliseconds / SECOND:.1f} s"
    for unit, name, limit in ((MINUTE, "min", 2 * HOUR), (HOUR, "h", 2 * DAY)):
        if milliseconds < limit:
            return f"{milliseconds // unit} {name}"
    return f"{milliseconds // DAY} d"
