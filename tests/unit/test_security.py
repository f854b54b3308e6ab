"""SECURITY.md names a test for each attack: those tests exist."""

from runtime.codes import LOGIN_CODE_ALPHABET, LOGIN_CODE_LENGTH
from runtime.settings import Settings
from tests.support.named_tests import ROOT, missing_tests, rows

TEXT = (ROOT / "SECURITY.md").read_text()


def test_every_test_that_the_threat_model_names_exists() -> None:
    """So a named test cannot be renamed or removed unnoticed."""
    assert missing_tests(TEXT) == []


def test_every_attack_names_a_test() -> None:
    """The last column of each row names at least one."""
    table = TEXT.partition("## Attacks")[2].partition("###")[0]
    attacks = rows(table)
    assert len(attacks) > 10
    assert [row for row in attacks if "::test_" not in row.split("|")[-2]] == []


def test_the_odds_are_those_of_the_settings() -> None:
    """With the code's length and alphabet, and the defaults of the budgets."""
    defaults = Settings()
    odds = defaults.wrong_codes_per_project * defaults.live_sessions_per_project
    odds /= len(LOGIN_CODE_ALPHABET) ** LOGIN_CODE_LENGTH
    assert f"\n{odds:.1e}\n" in TEXT
    assert f"20¹²: {odds:.1e} for" in (ROOT / "README.md").read_text()
    assert defaults.budget_window_ms == 600_000
