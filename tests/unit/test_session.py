import hashlib
import re
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projects.project import KEY_PREFIXES
from runtime.codes import (
    CODE_CHALLENGE_SHAPE,
    CODE_VERIFIER_SHAPE,
    DEVICE_CODE_PREFIX,
    DEVICE_CODE_SHAPE,
    KEY_SHAPE,
    LOGIN_CODE_ALPHABET,
    LOGIN_CODE_LENGTH,
    LOGIN_CODE_SHAPE,
    MAX_PARTITIONS,
    MINTED_TOKEN_PREFIX,
    POLLING_CODE_PREFIX,
    POLLING_CODE_SHAPE,
    REFRESH_TOKEN_SHAPE,
    SECRET_PREFIXES,
    SESSION_ID_LENGTH,
    SESSION_ID_SHAPE,
    TYPED_LOGIN_CODE_SHAPE,
    display_login_code,
    is_session_id,
    login_code_digest,
    mint_refresh_token,
    new_key,
    new_login_code,
    new_polling_code,
    new_session_id,
    normalise_login_code,
    parse_polling_code,
    partition_of,
    s256,
)
from runtime.redaction import MASK, redact

SESSION_ID = "00" + "0123456789ab" * 2
POLLING_CODE = POLLING_CODE_PREFIX + SESSION_ID + "s" * 32

login_codes = st.text(LOGIN_CODE_ALPHABET, min_size=LOGIN_CODE_LENGTH, max_size=LOGIN_CODE_LENGTH)
anything = st.text() | st.text(LOGIN_CODE_ALPHABET + "-", max_size=16) | st.text("0123456789abcdefxyz_", max_size=70)


def test_login_code_is_twelve_letters_that_nobody_confuses() -> None:
    """A code draws from 20 letters without vowels and look-alikes, shown in three groups (docs/architecture.md 5)."""
    codes = [new_login_code() for _ in range(400)]
    assert {len(code) for code in codes} == {12}
    assert set("".join(codes)) == set("BCDFGHJKLMNPQRSTVWXZ")
    assert display_login_code("WDJBMJHTXKQP") == "WDJB-MJHT-XKQP"


@given(login_codes, st.data())
def test_login_code_is_read_however_it_was_typed(code: str, data: st.DataObject) -> None:
    """Case, dashes and spaces do not matter, wherever they are."""
    typed = "".join(
        data.draw(st.sampled_from(["", " ", "-", " - "])) + data.draw(st.sampled_from([symbol, symbol.lower()]))
        for symbol in code
    )
    assert normalise_login_code(typed) == code
    assert normalise_login_code(display_login_code(code)) == code


@given(anything)
def test_any_other_text_is_no_login_code(text: str) -> None:
    """Reading a text never raises, and returns a code of the alphabet or None."""
    code = normalise_login_code(text)
    assert code is None or (len(code) == LOGIN_CODE_LENGTH and set(code) <= set(LOGIN_CODE_ALPHABET))


@pytest.mark.parametrize(
    "text",
    ["", "WDJB-MJHT-XKQ", "WDJB-MJHT-XKQPP", "WDJB-MJHT-XKQA", "WDJB-MJHT-XKQ1", "WDJB_MJHT_XKQP", "\ud800" * 12],
)
def test_malformed_login_code_is_none(text: str) -> None:
    """Too short, too long, a vowel, a digit, a foreign separator."""
    assert normalise_login_code(text) is None


def test_login_code_means_nothing_outside_its_project() -> None:
    """The stored digest depends on project and code."""
    digests = {login_code_digest(project, code) for project in ("p", "q") for code in ("BCDF", "BCDG")}
    assert len(digests) == 4
    assert {len(digest) for digest in digests} == {32}


@given(st.integers(0, MAX_PARTITIONS - 1))
def test_session_id_carries_its_partition(partition: int) -> None:
    """A session's partition is read from its id; an id of a partition that does not exist is not valid."""
    session_id = new_session_id(partition)
    assert len(session_id) == SESSION_ID_LENGTH
    assert partition_of(session_id) == partition
    assert is_session_id(session_id, partition + 1)
    assert not is_session_id(session_id, partition)


@given(st.integers(0, MAX_PARTITIONS - 1))
def test_polling_code_leads_back_to_its_session(partition: int) -> None:
    """A polling code is split into session id and digest; only the digest proves that it is the right one."""
    session_id = new_session_id(partition)
    code = new_polling_code(session_id)
    assert code.digest == hashlib.sha256(code.text.encode()).digest()
    assert parse_polling_code(code.text, partition + 1) == code
    assert parse_polling_code(code.text, partition) is None


@given(anything, st.integers(0, len(POLLING_CODE)), st.integers(0, len(POLLING_CODE)))
def test_malformed_polling_code_never_raises(text: str, start: int, end: int) -> None:
    """Reading a text returns a polling code of exactly this text, or None."""
    for candidate in (text, POLLING_CODE[:start] + text + POLLING_CODE[end:]):
        code = parse_polling_code(candidate, 1)
        assert code is None or (code.text == candidate and is_session_id(code.session_id, 1))


@pytest.mark.parametrize(
    "text",
    [
        "",
        POLLING_CODE[:-1],
        POLLING_CODE + "s",
        "lrq_" + POLLING_CODE[4:],
        POLLING_CODE_PREFIX + SESSION_ID.upper() + "s" * 32,
        POLLING_CODE_PREFIX + "zz" + SESSION_ID[2:] + "s" * 32,
        POLLING_CODE_PREFIX + "-1" + SESSION_ID[2:] + "s" * 32,
        POLLING_CODE[:-1] + "é",
        POLLING_CODE[:-1] + "\ud800",
    ],
)
def test_malformed_polling_code_is_none(text: str) -> None:
    """Wrong length, prefix, session id, partition or alphabet."""
    assert parse_polling_code(POLLING_CODE, 1) is not None
    assert parse_polling_code(text, 1) is None


@given(anything)
def test_malformed_session_id_never_raises(text: str) -> None:
    """Any text can be tested for being a session id."""
    assert not is_session_id(text, MAX_PARTITIONS) or len(text) == SESSION_ID_LENGTH


@pytest.mark.parametrize(
    ("shape", "draw"),
    [
        (LOGIN_CODE_SHAPE, lambda: display_login_code(new_login_code())),
        (TYPED_LOGIN_CODE_SHAPE, lambda: display_login_code(new_login_code()).lower()),
        (TYPED_LOGIN_CODE_SHAPE, new_login_code),
        (SESSION_ID_SHAPE, lambda: new_session_id(MAX_PARTITIONS - 1)),
        (POLLING_CODE_SHAPE, lambda: new_polling_code(new_session_id(0)).text),
        (DEVICE_CODE_SHAPE, lambda: new_polling_code(new_session_id(0), DEVICE_CODE_PREFIX).text),
        (REFRESH_TOKEN_SHAPE, lambda: mint_refresh_token(new_session_id(0)).successor().text),
        *((KEY_SHAPE, partial(new_key, prefix)) for prefix in KEY_PREFIXES.values()),
        (CODE_VERIFIER_SHAPE, lambda: new_key("")),
        (CODE_CHALLENGE_SHAPE, lambda: s256(new_key("")).decode()),
    ],
)
def test_whatever_is_drawn_has_its_shape(shape: str, draw: Callable[[], str]) -> None:
    """The shapes that are published, recognised and masked in logs match the drawn values to the character."""
    for _ in range(50):
        drawn = draw()
        assert re.fullmatch(shape, drawn)
        assert not re.fullmatch(shape, drawn[1:])


def test_whatever_begins_like_a_secret_is_masked() -> None:
    """The redaction of logs knows each prefix of a code, token or key."""
    codes = [new_polling_code(new_session_id(0), prefix).text for prefix in (POLLING_CODE_PREFIX, DEVICE_CODE_PREFIX)]
    drawn = [*codes, mint_refresh_token(new_session_id(0)).text, *map(new_key, KEY_PREFIXES.values())]
    assert [redact(secret) for secret in drawn] == [f"{prefix}{MASK}" for prefix in SECRET_PREFIXES]


@pytest.mark.parametrize(
    ("draw", "public", "bits"),
    [
        (lambda: new_polling_code(SESSION_ID).text, POLLING_CODE_PREFIX + SESSION_ID, 192),
        (lambda: mint_refresh_token(SESSION_ID).text, f"{MINTED_TOKEN_PREFIX}{SESSION_ID}000000", 320),
    ],
    ids=["polling_code", "minted_token"],
)
def test_secret_has_enough_random_bits(draw: Callable[[], str], public: str, bits: int) -> None:
    """What follows the public part is new each time and long enough (six bits a character)."""
    drawn = {draw() for _ in range(100)}
    assert len(drawn) == 100
    assert all(text.startswith(public) and 6 * (len(text) - len(public)) >= bits for text in drawn)
