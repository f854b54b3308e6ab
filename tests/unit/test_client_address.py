from ipaddress import ip_network
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.types import Scope

from api.request.address import client_address
from runtime.address import UNKNOWN_ADDRESS, counted_as

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("2001:db8:ff::/48"))
PROXY, STRANGER = "10.0.0.1", "192.0.2.7"
CLIENT = "198.51.100.4"
FORWARDED, FORWARDED_FOR = "forwarded", "x-forwarded-for"


def scope(peer: str | None, *headers: tuple[str, str]) -> Scope:
    """Return the ASGI scope of a request from a peer, with these headers."""
    given = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return cast("Scope", {"client": (peer, 4711) if peer else None, "headers": given})


def seen(peer: str | None, *headers: tuple[str, str]) -> str:
    """Return the client's address that the relay derives for a request."""
    return str(client_address(scope(peer, *headers), TRUSTED) or UNKNOWN_ADDRESS)


@pytest.mark.parametrize("header", [(FORWARDED, f"for={CLIENT}"), (FORWARDED_FOR, CLIENT)])
def test_header_of_a_stranger_is_not_believed(header: tuple[str, str]) -> None:
    """A peer that is not a trusted proxy speaks only for itself; without trusted networks no peer is trusted."""
    assert seen(STRANGER, header) == STRANGER
    assert str(client_address(scope(PROXY, header), ())) == PROXY


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (FORWARDED_FOR, CLIENT),
        (FORWARDED_FOR, f"{CLIENT}:50123"),
        (FORWARDED_FOR, f"203.0.113.9, {CLIENT}, 10.1.1.1 ,10.2.2.2"),
        (FORWARDED_FOR, f"no address at all, {CLIENT}"),
        (FORWARDED_FOR, f"::ffff:{CLIENT}"),
        (FORWARDED, f"for={CLIENT}"),
        (FORWARDED, f'FOR="{CLIENT}:50123";proto=https;by=10.0.0.1'),
        (FORWARDED, f'for=9, proto=https ; for={CLIENT}, for="10.1.1.1:4711";by="a, b"'),
        (FORWARDED, f'for=203.0.113.9;host="x, for=203.0.113.8", for={CLIENT};by="a, b", for=10.1.1.1'),
        (FORWARDED, f'for=", for={CLIENT}'),
        (FORWARDED, f'for=203.0.113.9;x="\\, for={CLIENT};host="h"'),
    ],
)
def test_right_most_stranger_is_the_client(name: str, value: str) -> None:
    """The client may have invented every address to the left of the first one that is not a trusted proxy."""
    assert seen(PROXY, (name, value)) == CLIENT


def test_lines_of_a_header_are_one_list() -> None:
    """A proxy may add a line of its own instead of an element (RFC 9110 §5.3)."""
    assert seen(PROXY, (FORWARDED_FOR, "203.0.113.9"), (FORWARDED_FOR, CLIENT)) == CLIENT
    assert seen(PROXY, (FORWARDED, 'for="203.0.113.9'), (FORWARDED, f"for={CLIENT}")) == CLIENT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (FORWARDED_FOR, ""),
        (FORWARDED_FOR, "unknown"),
        (FORWARDED_FOR, f"{CLIENT}, 10.0.0.256"),
        (FORWARDED_FOR, "fe80::1%eth0"),
        (FORWARDED, ""),
        (FORWARDED, "for=unknown"),
        (FORWARDED, "for=_hidden"),
        (FORWARDED, "proto=https"),
        (FORWARDED, f"for={CLIENT} junk"),
        (FORWARDED, f'for="{CLIENT}'),
        (FORWARDED, f"for={CLIENT}, for=unknown, for=10.1.1.1"),
    ],
)
def test_header_that_cannot_be_read_leaves_the_peer(name: str, value: str) -> None:
    """A hidden or malformed hop is not guessed at: the address of the peer counts."""
    assert seen(PROXY, (name, value)) == PROXY


def test_two_headers_must_agree() -> None:
    """A proxy that sets one header passes on the other one as the client sent it."""
    assert seen(PROXY, (FORWARDED, f"for={CLIENT}"), (FORWARDED_FOR, f"{CLIENT}, 10.1.1.1")) == CLIENT
    assert seen(PROXY, (FORWARDED, "for=203.0.113.9"), (FORWARDED_FOR, CLIENT)) == PROXY
    assert seen(PROXY, (FORWARDED, "for=_me"), (FORWARDED_FOR, CLIENT)) == PROXY


def test_chain_of_trusted_proxies_ends_at_its_left() -> None:
    """A request that a proxy itself made comes from that proxy."""
    assert seen(PROXY, (FORWARDED_FOR, "10.3.3.3, 10.2.2.2")) == "10.3.3.3"


def test_ipv6_is_counted_by_its_network() -> None:
    """A holder of one IPv6 address has 2^64 of them; an IPv4-mapped address counts as IPv4."""
    for address in ("2001:db8:1:2::17", "2001:db8:1:2:ffff:ffff:ffff:ffff"):
        seen_address = client_address(scope("2001:db8:ff::1", (FORWARDED, f'for="[{address}]:443"')), TRUSTED)
        assert str(seen_address) == address
        assert counted_as(str(seen_address)) == "2001:db8:1:2::/64"
    assert counted_as(str(client_address(scope(f"::ffff:{CLIENT}"), ()))) == CLIENT
    assert client_address(scope(None, (FORWARDED_FOR, CLIENT)), TRUSTED) is None
    assert counted_as(UNKNOWN_ADDRESS) == UNKNOWN_ADDRESS


@given(st.lists(st.tuples(st.sampled_from([FORWARDED, FORWARDED_FOR]), st.text(st.characters(max_codepoint=255)))))
def test_whatever_is_sent_ends_in_an_address(headers: list[tuple[str, str]]) -> None:
    """No header raises an exception."""
    assert seen(PROXY, *headers)


@given(st.text(st.characters(max_codepoint=255)), st.sampled_from([", ", ","]))
def test_no_client_can_hide_behind_what_it_sends(sent: str, comma: str) -> None:
    """Only the element that the proxy added counts, whatever the client sent to the left of it."""
    assert seen(PROXY, (FORWARDED_FOR, f"{sent}{comma}{CLIENT}")) == CLIENT
    for element in (f"for={CLIENT}", f'for="{CLIENT}:1";by="_p,q";proto=https'):
        assert seen(PROXY, (FORWARDED, f"{sent}{comma}{element}")) == CLIENT
