from typing import get_args

import msgspec
import pytest

from statemachine.commands import Command, decode_command, encode_command
from tests.support.commands import GOLDEN

IDS = [f"{type(command).__name__}-{number}" for number, (command, _) in enumerate(GOLDEN)]


@pytest.mark.parametrize(("command", "data"), GOLDEN, ids=IDS)
def test_command_is_these_bytes(command: Command, data: bytes) -> None:
    """Entries written by one version are read by another: these bytes may gain fields and never change."""
    assert encode_command(command) == data
    assert decode_command(data) == command


def test_every_command_has_golden_bytes() -> None:
    """tests/support/commands.py has every command."""
    assert {type(command) for command, _ in GOLDEN} == set(get_args(Command))


@pytest.mark.parametrize(("command", "data"), GOLDEN, ids=IDS)
def test_fields_of_a_later_version_are_ignored(command: Command, data: bytes) -> None:
    """A worker reads entries of an API that is newer."""
    assert decode_command(data[:-1] + b',"added_later":{"a":[1]}}') == command


@pytest.mark.parametrize(
    "field", [b',"minted_token_digest":null', b',"login_subject":null', b',"request_id":null,"traceparent":null']
)
def test_command_without_an_optional_field_is_read(field: bytes) -> None:
    """A worker reads entries of an API that is older than the field."""
    command, data = GOLDEN[1]
    older = data.replace(field, b"")
    assert older != data
    assert decode_command(older) == command


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"MeltSession","id":"c","session_id":"s","reply_to":"api"}',
        b'{"id":"c","session_id":"s","reply_to":"api","patience":1}',
        b'{"type":"ConsumeSession","id":"c","session_id":"s","reply_to":"api"}',
        b'{"type":"ConsumeSession","id":"c","session_id":"s","reply_to":"api","patience":"1"}',
        b'{"type":"CompleteSession","id":"c","session_id":"s","reply_to":"api","sealed_token":"%"}',
        b'{"type":"DenySession","id":"c","session_id":"s","reply_to":"api"}',
        b'{"type":"DenySession","id":"c","session_id":"s","reply_to":"api","reason":"melted"}',
        b"[]",
        b"{",
        b"\xff",
        b"",
    ],
)
def test_what_is_no_command_is_refused(data: bytes) -> None:
    """An unknown type, a missing or wrong field and broken JSON all raise the same kind of error."""
    with pytest.raises(msgspec.MsgspecError):
        decode_command(data)
