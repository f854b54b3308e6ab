from collections.abc import Mapping, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.cursor import (
    MAX_SEQUENCE,
    START,
    Cursor,
    EntryId,
    decode_cursor,
    encode_cursor,
    last_before,
)
from events.log import Batch, RawEntry, merge

SESSION = "00" * 13
PARTITIONS = 3

entry_ids = st.builds(EntryId, st.integers(0, 2**48), st.integers(0, MAX_SEQUENCE))
cursors: st.SearchStrategy[Cursor] = st.lists(entry_ids, min_size=1, max_size=64).map(tuple)

# Few and small numbers, so that partitions share milliseconds and whole ids.
logs = st.lists(
    st.sets(st.tuples(st.integers(1, 8), st.integers(0, 2)).map(lambda id_: EntryId(*id_)), max_size=12).map(sorted),
    min_size=PARTITIONS,
    max_size=PARTITIONS,
)


def entry(id_: EntryId, **changes: bytes) -> RawEntry:
    """An entry that is an event."""
    fields = {
        "specversion": b"1.0",
        "id": f"{SESSION}.1".encode(),
        "source": b"login-relay",
        "type": b"session.consumed",
        "subject": SESSION.encode(),
        "time": b"2026-01-01T00:00:00.000Z",
        "version": b"1",
        "data": b'{"project_id":"p"}',
        **changes,
    }
    return str(id_).encode(), {name.encode(): value for name, value in fields.items()}


def read(log: Sequence[Sequence[EntryId]], cursor: Cursor, count: int) -> Batch:
    """Return what one XREAD with COUNT would find."""
    found: Mapping[int, list[RawEntry]] = {
        partition: entries
        for partition, ids in enumerate(log)
        if (entries := [entry(id_) for id_ in ids if id_ > cursor[partition]][:count])
    }
    return merge(cursor, found, count)


def read_all(log: Sequence[Sequence[EntryId]], cursor: Cursor, count: int) -> list[tuple[EntryId, int, Cursor]]:
    """Read until there is nothing more."""
    told = []
    while True:
        batch = read(log, cursor, count)
        assert len(batch.events) <= count * PARTITIONS
        told += [(event.entry_id, event.partition, event.cursor) for event in batch.events]
        assert batch.events or batch.complete, "a read that finds nothing and wants to be repeated never ends"
        cursor = batch.cursor
        if batch.complete:
            return told


@given(logs, st.integers(1, 4))
def test_partitions_are_merged_in_time_order_without_gap_or_repeat(log: list[list[EntryId]], count: int) -> None:
    """However small the reads are, every entry is read exactly once, in the order of writing."""
    expected = sorted((id_, partition) for partition, ids in enumerate(log) for id_ in ids)
    assert [row[:2] for row in read_all(log, (START,) * PARTITIONS, count)] == expected


@given(logs, st.integers(1, 4), st.integers(1, 4), st.data())
def test_reading_goes_on_exactly_after_any_event(
    log: list[list[EntryId]], count: int, other_count: int, data: st.DataObject
) -> None:
    """After the n-th event's cursor, encoded and decoded, the n+1st event comes next, for any size of reads."""
    told = read_all(log, (START,) * PARTITIONS, count)
    if not told:
        return
    stopped = data.draw(st.integers(0, len(told) - 1))
    cursor = decode_cursor(encode_cursor(told[stopped][2]), PARTITIONS)
    assert cursor is not None
    assert read_all(log, cursor, other_count) == told[stopped + 1 :]


@given(logs, logs)
def test_what_is_written_later_comes_later(log: list[list[EntryId]], later: list[list[EntryId]]) -> None:
    """Even with a lower id than other partitions have, as after Redis' clock has stepped back."""
    first = read_all(log, (START,) * PARTITIONS, 100)
    cursor = first[-1][2] if first else (START,) * PARTITIONS
    grown = [
        [*ids, *(id_ for id_ in more if id_ > max(ids, default=START))] for ids, more in zip(log, later, strict=True)
    ]
    second = read_all(grown, cursor, 100)
    assert sorted(row[:2] for row in first + second) == sorted(
        (id_, partition) for partition, ids in enumerate(grown) for id_ in ids
    )


@given(cursors)
def test_cursor_is_read_as_it_was_written(cursor: Cursor) -> None:
    """A cursor survives its text, for its own number of partitions and no other."""
    text = encode_cursor(cursor)
    assert decode_cursor(text, len(cursor)) == cursor
    assert decode_cursor(text, len(cursor) + 1) is None
    assert text.isascii()
    assert not set(text) & set(" \r\n=")


def test_cursor_over_many_partitions_is_short() -> None:
    """Every event carries one: with entries of one minute in 64 partitions it takes less than a packet."""
    cursor = tuple(EntryId(1_767_225_600_000 + 900 * partition, 0) for partition in range(64))
    assert len(encode_cursor(cursor)) < 400


@given(st.one_of(st.text(max_size=40), st.binary(max_size=40).map(lambda data: data.hex()), cursors.map(str)))
def test_text_that_is_no_cursor_is_told(text: str) -> None:
    """A text is rejected unless it is exactly what `encode_cursor` writes."""
    cursor = decode_cursor(text, 1)
    assert cursor is None or encode_cursor(cursor) == text


@pytest.mark.parametrize(
    "numbers",
    [[], [5], [5, 1, 0], [5, 0], [5, 6, 0], [5, 0, -1], [5, 0, 0, 0], [2**64 - 1, -1, 0], ["5", 0, 0], {"a": 1}],
)
def test_numbers_that_are_no_cursor_are_told(numbers: object) -> None:
    """Too few, too many, negative, too large, of the wrong kind, not in canonical form."""
    from base64 import urlsafe_b64encode  # noqa: PLC0415 - for this test alone

    text = urlsafe_b64encode(msgspec.msgpack.encode(numbers)).rstrip(b"=").decode()
    assert decode_cursor(text, 1) is None


@given(st.integers(-5, 2**48), entry_ids)
def test_what_is_before_a_time_has_a_lower_id(milliseconds: int, id_: EntryId) -> None:
    """All entries of the millisecond itself come after; no entry is before the beginning of time."""
    assert (id_ > last_before(milliseconds)) == (id_.milliseconds >= max(milliseconds, 0) and id_ > START)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": b"{"},
        {"data": b"[]"},
        {"data": b"{}"},
        {"data": b"\xff"},
        {"version": b"two"},
        {"version": b"0"},
        {"type": b"\xff"},
        {"subject": b"somebody"},
        {"specversion": b"2.0"},
    ],
    ids=str,
)
def test_entry_that_is_no_event_is_passed_over(changes: dict[str, bytes]) -> None:
    """The cursor goes past it, and the events around it are read."""
    before, broken, after = EntryId(1, 0), EntryId(2, 0), EntryId(3, 0)
    batch = merge((START,), {0: [entry(before), entry(broken, **changes), entry(after)]}, 10)
    assert [event.entry_id for event in batch.events] == [before, after]
    assert merge((START,), {0: [entry(broken, **changes)]}, 10).cursor == (broken,)


def test_field_of_a_later_version_is_ignored() -> None:
    """A reader takes events with more fields than it knows."""
    batch = merge((START,), {0: [entry(EntryId(1, 0), added=b"later", data=b'{"project_id":"p","more":[1]}')]}, 10)
    assert batch.events[0].project_id == "p"
    assert b'"more":[1]' in msgspec.json.encode(batch.events[0].event)


class Watched(dict[bytes, bytes]):
    """An entry's fields, which record the names that were read."""

    def __init__(self, fields: Mapping[bytes, bytes]) -> None:
        super().__init__(fields)
        self.read: set[bytes] = set()

    def __getitem__(self, name: bytes) -> bytes:
        """Return a field, and record its name."""
        self.read.add(name)
        return super().__getitem__(name)


def test_data_of_other_projects_is_not_decoded() -> None:
    """The cursor skips their events by the attribute alone; all of the project's own are returned."""
    ours = [entry(EntryId(at, 0), projectid=b"p") for at in (2, 4)]
    theirs = [
        (str(EntryId(at, 0)).encode(), Watched(entry(EntryId(at, 0), projectid=b"q", data=b'{"project_id":"q"}')[1]))
        for at in (1, 3, 5)
    ]
    found = {0: sorted([*ours, *theirs], key=lambda row: row[0])}
    batch = merge((START,), found, 10, {"p"})
    assert [(event.entry_id.milliseconds, event.project_id) for event in batch.events] == [(2, "p"), (4, "p")]
    assert batch.cursor == (EntryId(5, 0),)
    assert [fields.read for _, fields in theirs] == [set()] * 3
    assert [event.project_id for event in merge((START,), found, 10).events] == ["q", "p", "q", "p", "q"]
    assert {frozenset(fields.read) for _, fields in theirs} == {frozenset({b"data"})}


@pytest.mark.parametrize(("wanted", "told"), [({"p"}, ["p"]), ({"q"}, ["q"]), (set(), []), (None, ["p", "q"])])
def test_event_of_an_older_version_is_told_apart_by_its_data(wanted: set[str] | None, told: list[str]) -> None:
    """It has no attribute that names its project."""
    found = {0: [entry(EntryId(at, 0), data=f'{{"project_id":"{of}"}}'.encode()) for at, of in ((1, "p"), (2, "q"))]}
    batch = merge((START,), found, 10, wanted)
    assert [event.project_id for event in batch.events] == told
    assert batch.cursor == (EntryId(2, 0),)


@pytest.mark.parametrize("wanted", [{"p"}, {"q"}, {"p", "q"}, None])
def test_event_of_two_projects_is_of_neither(wanted: set[str] | None) -> None:
    """The attribute and the data of an entry must name the same one."""
    entries = [entry(EntryId(1, 0), projectid=b"q"), entry(EntryId(2, 0), projectid=b"\xff")]
    assert merge((START,), {0: entries}, 10, wanted).events == []
