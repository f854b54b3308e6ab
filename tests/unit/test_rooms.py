"""The top-level packages: their names, their docstrings, and how many modules a folder has."""

import ast
import re
import sys
import tomllib
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NAMES = [Path(path).name for path in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
MOST_MODULES = 15


def folders() -> dict[str, Path]:
    """Return every folder with modules: of our packages, in this checkout or installed, and of bench and docs."""
    tops = {name: Path(str(import_module(name).__file__)).parent for name in NAMES} | {
        "bench": ROOT / "bench",
        "docs/generate": ROOT / "docs/generate",
    }
    return {
        str(name / path.parent.relative_to(top)): path.parent
        for name, top in ((Path(name), top) for name, top in tops.items())
        for path in sorted(top.rglob("*.py"))
        if "rivals" not in path.parts  # what other servers run, in environments of their own
    }


FOLDERS = folders()


@pytest.mark.parametrize("name", NAMES)
def test_top_level_name_is_ours_alone(name: str) -> None:
    """They are plain words: no other installed distribution may bring a package of the same name."""
    assert name not in sys.stdlib_module_names
    assert set(packages_distributions().get(name, ())) <= {"login-relay"}  # an editable install lists none


def test_every_package_is_held_to_the_contracts() -> None:
    """A package that import-linter does not know could import anything."""
    assert set(PYPROJECT["tool"]["importlinter"]["root_packages"]) == set(NAMES)


@pytest.mark.parametrize("folder", FOLDERS.values(), ids=FOLDERS)
def test_folder_says_what_it_is_and_is_not(folder: Path) -> None:
    """In one or two sentences, in the docstring of its package."""
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert said
    said = said.partition("\n\n    ")[0]  # an example may follow
    assert 1 <= len(re.findall(r"[.!?](?=\s|$)", said)) <= 2, said


@pytest.mark.parametrize("folder", FOLDERS.values(), ids=FOLDERS)
def test_folder_can_be_taken_in_at_a_glance(folder: Path) -> None:
    """A folder that holds more has more than one subject."""
    assert len(list(folder.glob("*.py"))) <= MOST_MODULES
