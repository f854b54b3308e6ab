import pytest

from statemachine.lifecycle import Outcome
from statemachine.store.outcomes import KeptOutcome


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"completed", KeptOutcome(Outcome.COMPLETED)),
        (b"pending k3yed-HMAC_as-base64u", KeptOutcome(Outcome.PENDING, "k3yed-HMAC_as-base64u")),
    ],
)
def test_outcome_is_these_bytes(value: bytes, kept: KeptOutcome) -> None:
    """With or without a fingerprint: two versions side by side read each other's outcomes."""
    assert KeptOutcome.read(value) == kept


@pytest.mark.parametrize("value", [b"melted", b"", b" fingerprint", b"COMPLETED"])
def test_outcome_of_a_version_to_come_is_an_error(value: bytes) -> None:
    """It is not read as another outcome."""
    with pytest.raises(ValueError, match="is not a valid Outcome"):
        KeptOutcome.read(value)


@pytest.mark.parametrize(
    ("kept", "fingerprint", "same"),
    [("one", "one", True), ("one", "other", False), ("one", "on", False), ("", "one", True), ("one", "", True)],
)
def test_outcome_is_of_the_request_with_its_fingerprint(kept: str, fingerprint: str, *, same: bool) -> None:
    """If either has none, they cannot be compared and count as equal."""
    assert KeptOutcome(Outcome.COMPLETED, kept).is_of(fingerprint) is same
