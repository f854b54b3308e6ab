from typing import get_args

import msgspec
import pytest

from statemachine.commands import AnyCommand, Command, decode_command, encode_command
from statemachine.lifecycle import State
from statemachine.session import TimedSession
from statemachine.store.reading import session_in_entry
from tests.support.commands import FAMILY_GOLDEN, GOLDEN, OPENING
from tokens.commands import FamilyCommand

ALL = [*GOLDEN, *FAMILY_GOLDEN]
IDS = [f"{type(command).__name__}-{number}" for number, (command, _) in enumerate(ALL)]


@pytest.mark.parametrize(("command", "data"), ALL, ids=IDS)
def test_command_is_these_bytes(command: AnyCommand, data: bytes) -> None:
    """Entries written by one version are read by another: these bytes may gain fields and never change."""
    assert encode_command(command) == data
    assert decode_command(data) == command


def test_every_command_has_golden_bytes() -> None:
    """tests/support/commands.py has every command."""
    assert {type(command) for command, _ in GOLDEN} == set(get_args(Command))
    assert {type(command) for command, _ in FAMILY_GOLDEN} == set(get_args(FamilyCommand))


@pytest.mark.parametrize(("command", "data"), ALL, ids=IDS)
def test_fields_of_a_later_version_are_ignored(command: AnyCommand, data: bytes) -> None:
    """A worker reads entries of an API that is newer."""
    assert decode_command(data[:-1] + b',"added_later":{"a":[1]}}') == command


@pytest.mark.parametrize(
    "field",
    [
        *(b',"minted_token_digest":null', b',"login_subject":null'),
        *(b',"request_id":null,"traceparent":null', b',"opens":null'),
    ],
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


@pytest.mark.parametrize(
    ("fields", "session"),
    [
        (
            b'["pending","1","1790000900000","1790000900000","p","","1790000000000","","",""]',
            TimedSession("s1", "p", State.PENDING, 1, 1790000900000, 1790000900000, since=1790000000000),
        ),
        (
            (
                b'["completed","2","1790000901000","1790000900000","p","a/\xc3\xa4","1790000000000","1790000800000","::1",'
                b'"{\\"family_digest\\":\\"AP8=\\",\\"token_digest\\":\\"/wA=\\",\\"subject\\":\\"ada\\",\\"client_id\\":\\"p\\",'
                b'\\"idle_ms\\":1,\\"life_ms\\":2}"]'
            ),
            TimedSession(
                "s1",
                "p",
                State.COMPLETED,
                2,
                1790000901000,
                1790000900000,
                "a/ä",
                since=1790000800000,
                address="::1",
                opens=OPENING,
            ),
        ),
    ],
)
@pytest.mark.parametrize("later", [b"", b',"of a later version"'])
def test_session_in_an_entry_is_these_bytes(fields: bytes, later: bytes, session: TimedSession) -> None:
    """Written by `enqueue.lua`, read by workers of this version or another: fields may be added at the end."""
    assert session_in_entry("s1", fields[:-1] + later + b"]") == session


@pytest.mark.parametrize("fields", [b'["completed","2","1","1","p","","1","1","::1"]', b'["melted"]', b"{}", b"\xff"])
def test_session_in_an_entry_that_says_too_little_is_read_from_redis(fields: bytes) -> None:
    """An API of an older version leaves out what a worker must know: whether a hand-over opens a family."""
    assert session_in_entry("s1", fields) is None
