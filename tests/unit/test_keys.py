import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from runtime.codes import MAX_PARTITIONS, login_code_digest, new_session_id
from runtime.redis.keys import TAGS, Keys

SLOTS = 16_384


def keys_of_session(keys: Keys, digest: bytes, session_id: str) -> list[str]:
    """Return every key and channel that a script of one session may touch."""
    partition = keys.partition_of(session_id)
    return [
        keys.session(session_id),
        keys.sealed_token(session_id),
        keys.claimable(session_id),
        keys.login(digest),
        keys.family(session_id),
        keys.successor(session_id),
        keys.families(partition, "project", "subject"),
        keys.cutoff(partition, "project", "subject"),
        keys.outcome(partition, "command"),
        keys.commands(partition),
        keys.deadlines(partition),
        keys.events(partition),
        keys.dead_letters(partition),
        keys.hints(partition),
        keys.replies(partition, "api"),
        keys.initiations_of_address(partition, "project", "192.0.2.1"),
        keys.initiations_in_project(partition, "project"),
        keys.live_sessions(partition, "project"),
        keys.live_sessions_of_address(partition, "project", "192.0.2.1"),
        keys.polled(session_id),
    ]


@given(st.sampled_from([1, 3, MAX_PARTITIONS]), st.text())
def test_all_keys_of_a_session_are_on_one_slot(partitions: int, login_code: str) -> None:
    """The login code alone determines the partition, and with it every key of its session."""
    keys = Keys("lr", partitions)
    digest = login_code_digest("project", login_code)
    names = keys_of_session(keys, digest, new_session_id(keys.partition_of_login(digest)))
    assert len({key_slot(name.encode()) for name in names}) == 1
    assert len({re.search(r"\{(.+?)\}", name)[1] for name in names}) == 1  # type: ignore[index] # each has a tag
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("partitions", [2**k for k in range(MAX_PARTITIONS.bit_length())])
def test_tags_spread_evenly_over_the_slots(partitions: int) -> None:
    """The first 2^k partitions fall one each into 2^k equal ranges of slots, so equal nodes get equal shares."""
    slots = [key_slot(Keys("any:prefix", partitions).session(new_session_id(p)).encode()) for p in range(partitions)]
    assert sorted(slot * partitions // SLOTS for slot in slots) == list(range(partitions))


def test_tags_are_distinct() -> None:
    """No two partitions share a tag."""
    assert len(set(TAGS)) == MAX_PARTITIONS == 64


def test_partition_of_a_login_code_never_changes() -> None:
    """Two versions that run side by side look for a session in the same place."""
    keys = Keys("lr", MAX_PARTITIONS)
    codes = ["BCDFGHJKLMNP", "WDJBMJHTXKQP", "ZZZZZZZZZZZZ"]
    assert [keys.partition_of_login(login_code_digest("project", code)) for code in codes] == [60, 51, 26]


def test_login_codes_spread_over_the_partitions() -> None:
    """Each of four partitions gets about a quarter of 4 000 sessions."""
    keys = Keys("lr", 4)
    shares = [0] * 4
    for number in range(4_000):
        shares[keys.partition_of_login(login_code_digest("project", str(number)))] += 1
    assert all(880 < share < 1_120 for share in shares)


def test_every_key_starts_with_the_prefix() -> None:
    """Two deployments with different prefixes share a Redis and no key."""
    keys = Keys("mine", 2)
    digest = login_code_digest("project", "code")
    names = [
        *keys_of_session(keys, digest, new_session_id(1)),
        *keys.permanent(),
        keys.worker("host:1:a"),
        keys.master_secrets(),
        keys.project("id"),
    ]
    assert all(name.startswith("mine:") for name in names)


def test_keys_of_one_script_of_the_guard_are_on_one_slot() -> None:
    """The script that counts wrong codes, the one that publishes refusals and the one that reads projects."""
    keys = Keys("lr", MAX_PARTITIONS)
    partition = keys.partition_of_project("project")
    for names in (
        [
            keys.wrong_codes_of_address("2001:db8::/64"),
            keys.wrong_codes_with_key("project", "key"),
            keys.wrong_codes_in_project("project"),
        ],
        [
            keys.audited(partition, "cause"),
            keys.audit_events(partition, "project", "type"),
            keys.events(partition),
        ],
        [keys.project("project"), keys.project_names(), keys.allowed_origins()],
    ):
        assert len({key_slot(name.encode()) for name in names}) == 1
        assert len(set(names)) == len(names)


def test_only_the_listed_keys_are_permanent() -> None:
    """Only three streams and an index per partition, and projects' names and origins, have no TTL."""
    keys = Keys("lr", 2)
    streams = {key(p) for key in (keys.commands, keys.events, keys.dead_letters, keys.deadlines) for p in (0, 1)}
    assert keys.permanent() == streams | {keys.project_names(), keys.allowed_origins()}
