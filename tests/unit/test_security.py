"""SECURITY.md names the test of each attack; here, that there are such tests."""

import re
from pathlib import Path

from statemachine.session import LOGIN_CODE_ALPHABET, LOGIN_CODE_LENGTH
from statemachine.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()


def named_tests() -> list[tuple[str, str]]:
    """Return the file and the name of each test; `::name` is of the file before it."""
    file, found = "", []
    for path, name in re.findall(r"`(tests/[\w/.]+)?::(\w+)`", TEXT):
        file = path or file
        found.append((file, name))
    return found


def test_every_test_that_the_threat_model_names_exists() -> None:
    """A test that is renamed or removed is missed here."""
    missing = [
        (file, name)
        for file, name in named_tests()
        if not re.search(rf"^(?:async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)
    ]
    assert missing == []


def test_every_attack_names_a_test() -> None:
    """Each row of the table ends with one at least."""
    table = TEXT.partition("## Attacks")[2].partition("###")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 10
    assert [row for row in rows if "::test_" not in row.split("|")[-2]] == []


def test_the_odds_are_those_of_the_settings() -> None:
    """With the code's length and alphabet, and the defaults of the budgets."""
    defaults = Settings()
    odds = defaults.wrong_codes_per_project * defaults.live_sessions_per_project
    odds /= len(LOGIN_CODE_ALPHABET) ** LOGIN_CODE_LENGTH
    assert f"\n{odds:.1e}\n" in TEXT
    assert f"20¹²: {odds:.1e} for" in (ROOT / "README.md").read_text()
    assert defaults.budget_window_ms == 600_000
