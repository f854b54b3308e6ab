"""The tests that documents name, and the sections that tests cite.

A document names a test as `path::name`, or `::name` for one in the file named before. A test cites a section of
`docs/wire.md` or `docs/architecture.md` by its number after the file, and several as `3, 4 and 5` or `3 to 6`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_BUILT = {"build", "dist", "node_modules", "__pycache__"}
_CITATION = re.compile(r"docs/(wire|architecture)\.md`?\s(\d+(?:(?:,| and| to)\s\d+)*)")


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


def folders() -> list[Path]:
    """Return the top-level folders, except hidden ones and those that builds create."""
    return [path for path in ROOT.iterdir() if path.is_dir() and path.name not in _BUILT and path.name[0] != "."]


def texts(*suffixes: str) -> Iterator[tuple[Path, str]]:
    """Yield each file with one of the suffixes, and its text."""
    found = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in folders():
        found += [path for path in folder.rglob("*") if not _BUILT.intersection(path.parts[len(ROOT.parts) :])]
    yield from ((path, path.read_text()) for path in found if path.suffix in suffixes)


def sections(document: str) -> set[str]:
    """Return the numbers of a document's sections: `## 3. Title`."""
    return set(re.findall(r"^## (\d+)\. ", (ROOT / document).read_text(), re.MULTILINE))


def cited_sections(text: str) -> set[tuple[str, str]]:
    """Return the sections that a text cites: the document and the number of each."""
    return {
        (f"docs/{name}.md", number)
        for name, numbers in _CITATION.findall(text)
        for number in re.findall(r"\d+", numbers)
    }
