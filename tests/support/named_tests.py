"""Tests that documents name, as `path::name`, or `::name` for one in the file named before."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def missing_tests(text: str) -> list[tuple[str, str]]:
    """Return the file and the name of each test that a document names and that does not exist."""
    file, missing = "", []
    for path, name in re.findall(r"`(tests/[\w/.]+)?::(\w+)`", text):
        file = path or file
        if not re.search(rf"^(?:async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE):
            missing.append((file, name))
    return missing


def rows(table: str) -> list[str]:
    """Return the rows of the first table in a text, without its head."""
    return [line for line in table.splitlines() if line.startswith("|")][2:]
