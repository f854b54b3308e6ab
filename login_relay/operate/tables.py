"""Tables and ages, as the operator's commands print them for people."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDEST = 10_000  # columns; a row is one line, however wide the terminal is, so that it can be piped to grep
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000  # milliseconds


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table as text. Each column is as wide as its widest cell, and numbers are right-aligned."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column, name in enumerate(head):
        is_numeric = all(isinstance(row[column], int) for row in rows)
        drawn.add_column(name, justify="right" if is_numeric else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*(printable(str(cell)) for cell in row))
    console = Console(width=WIDEST, color_system=None)
    with console.capture() as capture:
        console.print(drawn)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def printable(text: str | None) -> Text:
    """Return a text that somebody else wrote, without the characters that a terminal obeys."""
    return Text("".join(symbol for symbol in text or "" if symbol.isprintable()))


def age(milliseconds: int | None) -> str:
    """Return a length of time as people say it: `340 ms`, `4.2 s`, `12 min`, `3 h`, `5 d`; a dash for None."""
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
