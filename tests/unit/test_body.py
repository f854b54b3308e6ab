import re

import msgspec
import pytest

from api.request.body import parse_body
from api.request.headers import idempotency_key, wait_preference
from api.request.printable import PATTERN, check_printable
from api.request.refusals import Misfit, RequestRefusal, TooLarge, TooSlow, Unreadable
from api.stack.complete import CompleteRequest
from api.stack.errors import KNOWN_ERRORS, KnownError, PlainError, of_request
from api.stack.initiate import InitiateRequest

JSON = {b"content-type": b"application/json"}
initiate = msgspec.json.Decoder(InitiateRequest)
complete = msgspec.json.Decoder(CompleteRequest)


@pytest.mark.parametrize(
    "content_type",
    [b"application/json", b"Application/JSON", b"application/json; charset=utf-8", b'application/json;charset="UTF-8"'],
)
def test_body_is_json(content_type: bytes) -> None:
    """A JSON body is read, however its type is written."""
    body = parse_body(b'{"login_code":"\xc3\xa9"}', {b"content-type": content_type}, complete)
    assert body == CompleteRequest("é")


def test_absent_body_is_an_empty_object() -> None:
    """Clients send initiate with no body and no type (docs/wire.md 3)."""
    assert parse_body(b"", {}, initiate) == InitiateRequest()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{}", b""),
        (b"{}", b"text/plain"),
        (b"a=b", b"application/x-www-form-urlencoded"),
        (b"{}", b"application/json; charset=latin-1"),
        (b"{}", b"application/json\xff"),
        (b"{", b"application/json"),
        (b'{"login_code":"\xff"}', b"application/json"),
        (b'{"login_code":"\\ud800"}', b"application/json"),
        (b"[" * 60_000, b"application/json"),
        (b'{"x":' * 10_000, b"application/json"),
        (b" ", b"application/json"),
    ],
)
def test_body_that_cannot_be_read_is_a_parsing_error(body: bytes, content_type: bytes) -> None:
    """Wrong type, wrong charset, broken JSON, bytes that are not UTF-8, endless nesting: one known error."""
    with pytest.raises(Unreadable):
        parse_body(body, {b"content-type": content_type} if content_type else {}, complete)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{}", "missing required field `login_code`"),
        (b"[]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        (b'{"login_code":1}', "`$.login_code`"),
        (b'{"login_code":null}', "`$.login_code`"),
        (b'{"login_code":"hunter2","extra":1}', "unknown field `extra`"),
        (b'{"login_code":"hunter2","mode":1}', "`$.mode`"),
        (b'{"login_code":"hunter2","refresh_token":null}', "`$.refresh_token`"),
        (b'{"login_code":"hunter2","refresh_token":["hunter2"]}', "`$.refresh_token`"),
        (b'{"login_code":"hunter2","mode":"hunter2"}', "`$.mode`"),
    ],
)
def test_body_that_does_not_fit_is_a_schema_error(body: bytes, reason: str) -> None:
    """Message and details give the same text: which field and why, and never a value."""
    with pytest.raises(Misfit) as refused:
        parse_body(body, JSON, complete)
    answer = of_request(refused.value)
    assert isinstance(answer, KnownError)
    assert answer.details == {"message": answer.message}
    assert reason in answer.message
    assert "hunter2" not in answer.message


@pytest.mark.parametrize(
    ("refusal", "status", "known"),
    [
        (TooLarge(), 413, None),
        (TooSlow(), 408, None),
        (Unreadable("It is none."), 400, "BODY_PARSING_ERROR"),
        (Misfit("Expected `str`", "at `$.mode`"), 400, "SCHEMA_ERROR"),
    ],
)
def test_refusal_of_a_request_has_its_answer(refusal: RequestRefusal, status: int, known: str | None) -> None:
    """Large and slow bodies in plain text, the others as a known error (docs/wire.md, section 6)."""
    answer = of_request(refusal)
    if isinstance(answer, PlainError):
        assert (answer.status, known) == (status, None)
    else:
        assert (KNOWN_ERRORS[answer.code].status, answer.code) == (status, known)


@pytest.mark.parametrize("fact", ["a", "Ünïcode 猫 🐈", "x" * 128])
def test_client_fact_is_printable_text(fact: str) -> None:
    """A tool may name itself in any script."""
    assert parse_body(msgspec.json.encode({"client_name": fact}), JSON, initiate).client_name == fact


@pytest.mark.parametrize("fact", ["", "x" * 129])
def test_client_fact_has_1_to_128_characters(fact: str) -> None:
    """An empty one says nothing; absent facts are left out."""
    with pytest.raises(Misfit):
        parse_body(msgspec.json.encode({"client_name": fact}), JSON, initiate)


@pytest.mark.parametrize(
    "text", ["a\x1b[2Jb", "a\nb", "a\n", "\x7f", "a\u2028b", "\x85", "\ue000", "\U000e0041", "\u3164"]
)
def test_text_that_garbles_a_terminal_or_hides_something_is_refused(text: str) -> None:
    """It is shown to people: no control characters, not even at the end, and nothing invisible."""
    with pytest.raises(Misfit) as refused:
        check_printable(client_name="fine", hostname=text)
    assert refused.value.where == "at `$.hostname`"


@pytest.mark.parametrize("text", ["a", "two words", "Ünïcode 猫 🐈", "e\u0301", "\u0e01\u0e34", "❤\ufe0f"])
def test_text_in_any_script_is_printable(text: str) -> None:
    """Letters, marks, digits, punctuation, symbols and spaces; an absent field is printable too."""
    check_printable(client_name=text, client_version=None, hostname=msgspec.UNSET)


def test_openapi_refuses_no_text_that_is_accepted() -> None:
    """Its pattern cannot name every character that is refused, but it names no other."""
    documented = re.compile(PATTERN)
    refused = [character for character in map(chr, range(0x10000)) if not documented.search(character)]
    assert len(refused) > 100
    for character in refused:
        with pytest.raises(Misfit):
            check_printable(text=character)


@pytest.mark.parametrize("key", [b"a", b"~!" * 127, b"0b0f8a5e-8a52-4f9c-9a63-d81a2a2f0a11"])
def test_idempotency_key_is_visible_ascii(key: bytes) -> None:
    """1 to 255 visible ASCII characters (docs/wire.md 4)."""
    assert idempotency_key({b"idempotency-key": key}) == key.decode()
    assert idempotency_key({}) is None


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"a b", b"a\n", b"\xc3\xa9", b"\x7f"])
def test_malformed_idempotency_key_is_a_schema_error(key: bytes) -> None:
    """A malformed key is rejected, not ignored."""
    with pytest.raises(Misfit):
        idempotency_key({b"idempotency-key": key})


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        ([(b"prefer", b"wait=10")], 10),
        ([(b"prefer", b"respond-async, Wait = 10")], 10),
        ([(b"prefer", b'wait="10"; foo=bar')], 10),
        ([(b"prefer", b"return=minimal"), (b"prefer", b"wait=3")], 3),
        ([(b"prefer", b"wait=0")], 0),
        ([(b"prefer", b"wait=99999999999")], None),
        ([(b"prefer", b"wait=-1")], None),
        ([(b"prefer", b"wait=1.5")], None),
        ([(b"prefer", b"wait")], None),
        ([(b"prefer", b"x-wait=5")], None),
        ([(b"prefer", b"wait=5x")], None),
        ([(b"prefer-not", b"wait=5")], None),
    ],
)
def test_wait_preference_is_read_as_rfc_7240_writes_it(headers: list[tuple[bytes, bytes]], seconds: int | None) -> None:
    """Several preferences may share a header; one that makes no sense is ignored (RFC 7240 §2)."""
    assert wait_preference(headers) == seconds
