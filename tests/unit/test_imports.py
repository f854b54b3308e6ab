"""What tests share is in tests/support, so that a test module can be moved, split or deleted by itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.named_tests import ROOT

FILES = sorted((ROOT / "tests").rglob("*.py"))


def name_of(path: Path) -> str:
    """Return how a file reads in a message, and in the name of a test."""
    return str(path.relative_to(ROOT))


def imported(path: Path) -> Iterator[str]:
    """Return what a file imports at any depth: modules, and the names from them, which may be modules too."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module, names, level):
                yield from (f"{'.' * level}{module or ''}.{alias.name}" for alias in names)


def is_of_pytest(name: str) -> bool:
    """Whether one of the dotted parts of a name is a test module, a test or a conftest."""
    return any(part == "conftest" or part.startswith("test_") for part in name.split("."))


def test_no_file_imports_a_test_module_or_a_conftest() -> None:
    """Pytest alone loads them; what two files need is in tests/support."""
    found = {
        name_of(path): wrong
        for path in FILES
        if (wrong := [name for name in imported(path) if name.startswith(("tests", ".")) and is_of_pytest(name)])
    }
    assert found == {}


@pytest.mark.parametrize("path", [path for path in FILES if path.name == "conftest.py"], ids=name_of)
def test_a_conftest_defines_fixtures_and_hooks_only(path: Path) -> None:
    """A class or a function that is neither belongs in tests/support, where it can be imported."""
    defined = [
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    others = [
        node.name
        for node in defined
        if not node.name.startswith("pytest_")
        and not any(ast.unparse(decorator).startswith("pytest.fixture") for decorator in node.decorator_list)
    ]
    assert others == []
