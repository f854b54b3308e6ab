"""docs/wire.md 3 to 6: request bodies. Each kind of wrong body has its answer, and none of them is a 500."""

import json
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.wire import CANCEL, COMPLETE, ENDPOINTS, INITIATE, KEYS, POLL, Login, Wire

JSON = {"content-type": "application/json"}
LIMIT = 65_536  # bytes
GOOD = {
    INITIATE: {},
    POLL: {"polling_code": "lrp_x"},
    COMPLETE: {"login_code": "BBBB-BBBB-BBBB"},
    CANCEL: {"polling_code": "lrp_x"},
}


def send(wire: Wire, path: str, content: bytes | Iterator[bytes], **headers: str) -> httpx.Response:
    """Send bytes unchanged, as JSON unless another type is named."""
    return wire.post(path, content=content, headers={**wire.server_headers, **JSON, **headers})


def is_known(response: httpx.Response, code: str) -> bool:
    """Return whether the answer is this 400; the client has checked that header and body agree."""
    return response.status_code == httpx.codes.BAD_REQUEST and response.headers.get("x-stack-known-error") == code


def is_misfit(response: httpx.Response, reason: str) -> bool:
    """Return whether the answer is a SCHEMA_ERROR with this reason in both message and details."""
    return (
        is_known(response, "SCHEMA_ERROR")
        and response.json()["details"] == {"message": response.json()["error"]}
        and reason in response.json()["error"]
    )


UNREADABLE = {
    "no JSON": b"{",
    "half a field": b'{"polling_code":',
    "two values": b"{}{}",
    "form": b"polling_code=x",
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"polling_code":"x"}'.encode("utf-16"),
    "Latin-1": '{"polling_code":"é","login_code":"é","hostname":"é"}'.encode("latin-1"),
    "broken UTF-8 in an unknown field": b'{"unknown":"\xff"}',
    "half a surrogate pair": b'{"hostname":"\\ud800","polling_code":"\\ud800","login_code":"\\ud800"}',
    "NaN": b'{"expires_in_millis":NaN,"polling_code":NaN,"login_code":NaN}',
    "comment": b"{/**/}",
    "NUL": b"\0",
    "white space": b"  ",
    "deep and broken": b"[" * 60_000,
    "deep": b'{"unknown":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("path", ENDPOINTS)
def test_body_that_is_no_json_is_a_parsing_error(wire: Wire, path: str, content: bytes) -> None:
    """It must be JSON in UTF-8, and not nested endlessly (docs/wire.md 6)."""
    assert is_known(send(wire, path, content), "BODY_PARSING_ERROR")


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/json; charset=latin-1",
        "application/json, text/plain",
        "*/*",
    ],
)
@pytest.mark.parametrize("path", ENDPOINTS)
def test_body_of_another_type_is_a_parsing_error(wire: Wire, path: str, content_type: str) -> None:
    """Valid JSON under another type is not guessed at (docs/wire.md 6)."""
    response = send(wire, path, json.dumps(GOOD[path]).encode(), **{"content-type": content_type})
    assert is_known(response, "BODY_PARSING_ERROR")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", 'Application/JSON ;charset="UTF-8"'])
def test_json_may_name_its_charset(wire: Wire, content_type: str) -> None:
    """As many clients do."""
    assert send(wire, INITIATE, b"{}", **{"content-type": content_type}).status_code == httpx.codes.OK


@pytest.mark.parametrize("path", [POLL, COMPLETE, CANCEL])
@pytest.mark.parametrize("headers", [{}, {"content-type": "text/plain"}])
def test_absent_body_is_an_empty_object(wire: Wire, path: str, headers: dict[str, str]) -> None:
    """It is enough for initiate, and lacks what the others need; its type does not matter."""
    response = wire.post(path, headers={**wire.server_headers, **headers})
    assert is_misfit(response, "missing required field `" + ("login_code" if path == COMPLETE else "polling_code"))
    assert wire.post(INITIATE, headers={**wire.server_headers, **headers}).status_code == httpx.codes.OK


@pytest.mark.parametrize("content", [b"[]", b"null", b'"{}"', b"1", b"true", b"[{}]"])
@pytest.mark.parametrize("path", ENDPOINTS)
def test_body_must_be_an_object(wire: Wire, path: str, content: bytes) -> None:
    """Other JSON does not fit."""
    assert is_misfit(send(wire, path, content), "Expected `object`, got `")


@pytest.mark.parametrize("unknown", ["extra", "loginCode", "Polling_code", "", "é", "\0", "__proto__"])
@pytest.mark.parametrize("path", ENDPOINTS)
def test_unknown_field_is_refused_by_name(wire: Wire, path: str, unknown: str) -> None:
    """A misspelt field is not silently ignored (docs/wire.md 6)."""
    assert is_misfit(wire.post(path, json={**GOOD[path], unknown: 1}), f"contains unknown field `{unknown}`")


OF_WRONG_TYPE = {
    INITIATE: ("expires_in_millis", "anon_refresh_token", "client_name", "client_version", "hostname"),
    POLL: ("polling_code",),
    CANCEL: ("polling_code", "code_verifier"),
    COMPLETE: ("login_code", "mode", "refresh_token", "subject"),
}


@pytest.mark.parametrize(
    ("path", "field"), [(path, field) for path, fields in OF_WRONG_TYPE.items() for field in fields]
)
def test_field_of_a_wrong_type_is_refused_by_name(wire: Wire, path: str, field: str) -> None:
    """For any type; the value is not repeated."""
    nullable = {"client_name", "client_version", "hostname"}
    for value in (True, 1.5, [], {}, ["let-me-in"], {"let-me-in": 1}, *(() if field in nullable else (None,))):
        response = wire.post(path, json={**GOOD[path], field: value})
        assert is_misfit(response, f"`$.{field}`"), value
        assert "let-me-in" not in response.text


@pytest.mark.parametrize("mode", ["", "Complete", "let-me-in", "check ", "x" * 60_000, "` - at `$.x`", "a\nb"])
def test_mode_is_one_of_three(wire: Wire, mode: str) -> None:
    """Another value is rejected and not repeated: it may be a secret in the wrong place."""
    response = wire.complete(Login("BBBB-BBBB-BBBB", ""), mode=mode)
    assert is_misfit(response, "Invalid enum value - at `$.mode`")


@pytest.mark.parametrize("text", ["1000", "1001", "86399999", "86400000"])
def test_a_session_may_last_a_second_to_a_day(wire: Wire, text: str) -> None:
    """In whole milliseconds (docs/wire.md 3)."""
    assert send(wire, INITIATE, f'{{"expires_in_millis":{text}}}'.encode()).status_code == httpx.codes.OK


@pytest.mark.parametrize(
    "text",
    [
        "999",
        "86400001",
        "0",
        "-1",
        "-1000",
        "1000.0",
        "1000.5",
        "1e3",
        "true",
        '"1000"',
        "null",
        "[1000]",
        "1e999",
        "9223372036854775808",
        "1" + "0" * 400,
    ],
)
def test_other_lifetimes_do_not_fit(wire: Wire, text: str) -> None:
    """Out of bounds, or not an integer: floats, booleans and strings are not converted."""
    assert is_misfit(send(wire, INITIATE, f'{{"expires_in_millis":{text}}}'.encode()), "`$.expires_in_millis`")


@pytest.mark.parametrize("field", ["client_name", "client_version", "hostname"])
def test_client_facts_are_short_and_printable(wire: Wire, field: str) -> None:
    """They are shown to the person who approves (docs/wire.md 3)."""
    for fact in ("a", "x" * 128, "Ünïcode 猫 🐈", "two words", None):
        assert wire.post(INITIATE, json={field: fact}).status_code == httpx.codes.OK
    for fact in ("", "x" * 129, "a\n", "a\x1b[2Jb", "\0", "\x7f", "\x85", "a\u202eb", "a\u200bb", "\ufeff"):
        assert is_misfit(wire.post(INITIATE, json={field: fact}), f"`$.{field}`"), repr(fact)


UNSEEN = {
    "soft hyphen": "\u00ad",
    "grapheme joiner": "\u034f",
    "Arabic letter mark": "\u061c",
    "Hangul fillers": "\u115f\u1160\u3164\uffa0",
    "Mongolian vowel separator": "\u180e",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "blank Braille pattern": "\u2800",
    "annotation anchor": "\ufff9",
    "private use": "\ue000",
    "no character": "\uffff",
    "tags": "".join(map(chr, (0xE0001, 0xE0041, 0xE007F))),
}


@pytest.mark.parametrize("text", UNSEEN.values(), ids=UNSEEN)
def test_what_people_are_shown_has_nothing_that_they_cannot_see(wire: Wire, text: str) -> None:
    """Each such character, in a fact or in a subject, is refused by the field's name (docs/wire.md, 3 and 5)."""
    for character in text:
        for field in ("client_name", "client_version", "hostname"):
            response = wire.post(INITIATE, json={field: f"acme{character}"})
            assert is_misfit(response, f"Expected only characters that can be seen - at `$.{field}`"), ascii(character)
    response = wire.complete(Login("BBBB-BBBB-BBBB", ""), subject=f"user{text}")
    assert is_misfit(response, "Expected only characters that can be seen - at `$.subject`")


def test_client_facts_have_256_bytes_together(wire: Wire) -> None:
    """In UTF-8: they are kept for each login that anybody starts (docs/wire.md, section 3)."""
    most = {"client_name": "\N{CAT}" * 31, "client_version": "é" * 64, "hostname": "xxxx"}
    assert wire.post(INITIATE, json=most).status_code == httpx.codes.OK
    for field, fact in most.items():
        response = wire.post(INITIATE, json={**most, field: f"{fact}x"})
        assert is_misfit(response, "Expected at most 256 bytes in UTF-8"), field


TOKENS_THAT_DO_NOT_FIT = {
    "empty": "",
    "8193 characters": "x" * 8_193,
    "white space": "a b",
    "line feed": "token\n",
    "NUL": "\0",
    "escape sequence": "\x1b]0;title\x07token",
    "DEL": "token\x7f",
    "not ASCII": "tökén",
}


@pytest.mark.parametrize("token", TOKENS_THAT_DO_NOT_FIT.values(), ids=TOKENS_THAT_DO_NOT_FIT)
def test_refresh_token_is_1_to_8192_characters_of_visible_ascii(wire: Wire, token: str) -> None:
    """A terminal can show it, a header can carry it; what does not fit completes nothing (docs/wire.md, section 5)."""
    login = wire.initiate()
    assert is_misfit(wire.complete(login, refresh_token=token), "`$.refresh_token`")
    assert wire.poll(login).json() == {"status": "waiting"}


def test_the_last_of_two_fields_of_a_name_counts(wire: Wire) -> None:
    """RFC 8259 §4 leaves it open; all parsers at hand agree. Each must be valid."""
    login = wire.initiate()
    twice = f'{{"login_code":"BBBB-BBBB-BBBB","login_code":"{login.login_code}"}}'.encode()
    assert send(wire, COMPLETE, twice).json() == {}
    assert is_misfit(send(wire, INITIATE, b'{"hostname":1,"hostname":"a"}'), "`$.hostname`")


def pieces(size: int) -> Iterator[bytes]:
    """Yield a body of some size without announcing it (chunked)."""
    yield b"{}"
    for start in range(2, size, 4_096):
        yield b" " * min(4_096, size - start)


@pytest.mark.parametrize("size", [LIMIT + 1, 70_000, 2_000_000])
@pytest.mark.parametrize("path", ENDPOINTS)
def test_body_over_64_kib_is_refused(wire: Wire, path: str, size: int) -> None:
    """By its announced length, or without one as soon as it is too large (docs/wire.md, section 6)."""
    for content in (b"{}" + b" " * (size - 2), pieces(size)):
        response = send(wire, path, content)
        assert (response.status_code, response.text) == (413, "The request body is larger than 64 KiB.")
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.headers["connection"] == "close"


@pytest.mark.parametrize("size", [4_097, LIMIT + 1])
@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_caller_is_checked_before_its_body_is_read(wire: Wire, path: str, size: int) -> None:
    """So a body of any size is refused by its head, and the connection closed (docs/wire.md, section 14)."""
    for content in (b"x" * size, pieces(size)):
        response = wire.post(path, content=content, headers=JSON)
        assert is_known(response, "ACCESS_TYPE_REQUIRED")
        assert response.headers["connection"] == "close"
    kept = wire.post(path, content=pieces(4_096), headers=JSON)
    assert is_known(kept, "ACCESS_TYPE_REQUIRED")
    assert "connection" not in kept.headers


def test_body_of_64_kib_is_read(wire: Wire) -> None:
    """To its last byte, whether or not its length is announced."""
    for content in (b"{}" + b" " * (LIMIT - 2), pieces(LIMIT)):
        assert send(wire, INITIATE, content).status_code == httpx.codes.OK
    assert is_known(send(wire, INITIATE, b"{}" + b" " * (LIMIT - 3) + b"x"), "BODY_PARSING_ERROR")


# Any header value that can be sent at all: visible characters, and what Latin-1 has beyond ASCII.
header_values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, blacklist_characters="\x7f"), max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
field_names = st.sampled_from([name for names in OF_WRONG_TYPE.values() for name in names]) | st.text(max_size=10)


@pytest.mark.parametrize("path", ENDPOINTS)
@given(data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_request_makes_it_fail(wire: Wire, path: str, data: st.DataObject) -> None:
    """Generated headers and bodies: every answer is one that the OpenAPI document describes, and none is 5xx."""
    login = wire.initiate()
    known = st.sampled_from([login.login_code, login.polling_code, "check", "complete", 1_000, "é" * 5_000, ""])
    bodies = st.dictionaries(field_names, known | json_values, max_size=4).map(json.dumps).map(str.encode)
    content = data.draw(bodies | json_values.map(json.dumps).map(str.encode) | st.binary(max_size=60), "content")
    values = {
        "project-id": st.just(wire.project.project_id) | header_values,
        "access-type": st.sampled_from(["client", "server", "admin"]) | header_values,
        "override-error-status": st.sampled_from(["true", "false"]) | header_values,
        "admin-access-token": header_values,
        **{key: st.just(wire.keys[key]) | header_values for key in KEYS},
    }
    headers = {
        **wire.server_headers,
        "content-type": data.draw(st.just("application/json") | header_values, "content-type"),
        **data.draw(
            st.fixed_dictionaries(
                {},
                optional={
                    **{
                        prefix + name: value for name, value in values.items() for prefix in ("x-stack-", "x-hexclave-")
                    },
                    "idempotency-key": header_values,
                    "prefer": st.sampled_from(["wait=0", "wait", "wait=0, wait=1", "respond-async"]) | header_values,
                },
            ),
            "headers",
        ),
    }
    sent = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    assert wire.post(path, content=content, headers=sent).status_code < 500
