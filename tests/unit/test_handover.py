"""What is sealed for a tool."""

import msgspec
import pytest

from statemachine.handover import Handover


@pytest.mark.parametrize(
    "handover",
    [
        Handover("lrt_1"),
        Handover('{"refresh_token":"x"}'),
        Handover("lrt_1", "user:42", "cli repo"),
        Handover(token_response=msgspec.Raw(b'{"access_token":"a","token_type":"Bearer"}')),
    ],
)
def test_what_is_sealed_is_opened_again(handover: Handover) -> None:
    """Whatever a token looks like, it is told from more than a token."""
    opened = Handover.of_text(handover.to_text())
    assert bytes(opened.token_response) == bytes(handover.token_response)
    assert (opened.refresh_token, opened.subject, opened.scope) == (
        handover.refresh_token,
        handover.subject,
        handover.scope,
    )


def test_refresh_token_alone_stands_for_itself() -> None:
    """Versions that know of no more read and write just that."""
    assert Handover("lrt_1").to_text() == "lrt_1"
    assert (
        Handover("lrt_1", "user:42", "cli").to_text() == ' {"refresh_token":"lrt_1","subject":"user:42","scope":"cli"}'
    )
