"""The address that a request comes from: the socket's peer or, if that is a trusted proxy, the client that it names.

Each proxy appends the address of its peer on the right. The right-most address that is not a trusted proxy is the
client's; the client may have made up everything left of it. If a header cannot be read or two headers disagree, the
address is the socket's peer.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from litestar.types import Scope

from runtime.address import UNKNOWN_ADDRESS, Network, counted_as

MAX_READ = 4_096  # characters from the right; no chain of proxies is longer

Address = IPv4Address | IPv6Address


class Sender(NamedTuple):
    """Who sent a request, as far as it is known."""

    address: str
    counted_as: str
    """What budgets count: the address, or its network if it is IPv6."""
    user_agent: str
    """As it was sent. It may contain anything."""


_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110 §5.6.2
_PAIR = rf'{_TOKEN}=(?:{_TOKEN}|"(?:[^"\\]|\\.)*")'
_FORWARDED_ELEMENT = re.compile(rf"\s*{_PAIR}(?:\s*;\s*{_PAIR})*\s*")  # RFC 7239 §4
_FOR = re.compile(rf'(?:^|;)\s*for=(?:({_TOKEN})|"((?:[^"\\]|\\.)*)")', re.IGNORECASE)
_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::\d{1,5})?")  # RFC 7239 §6, without `unknown` and `_hidden`


def client_address(scope: Scope, trusted: Sequence[Network]) -> Address | None:
    """Return the client's address; None if the socket has no address, like a Unix socket."""
    client = scope["client"]
    peer = _address(client[0]) if client else None
    if peer is None or not _is_trusted(peer, trusted):
        return peer
    named = []
    for header, last in ((b"forwarded", _last_forwarded), (b"x-forwarded-for", _last_forwarded_for)):
        # Lines of the same name are one list (RFC 9110 §5.3).
        if lines := [value.decode("latin-1") for name, value in scope["headers"] if name == header]:
            named.append(_right_most_stranger(last(",".join(lines)[-MAX_READ:]), trusted))
    # A client can add the header that the proxy does not set: a single one is believed, two must agree.
    return named[0] if named and named[0] is not None and named.count(named[0]) == len(named) else peer


def sender(scope: Scope, trusted: Sequence[Network]) -> Sender:
    """Return who sent a request, which may have come through trusted proxies."""
    address = str(client_address(scope, trusted) or UNKNOWN_ADDRESS)
    user_agent = dict(scope["headers"]).get(b"user-agent", b"")
    return Sender(address, counted_as(address), user_agent.decode("latin-1"))


def _right_most_stranger(hops: Iterable[Address | None], trusted: Sequence[Network]) -> Address | None:
    """Return the right-most hop that is not a trusted proxy, else the left-most; None if a hop before it is unreadable.

    `hops` come from the right.
    """
    hop = None
    for hop in hops:
        if hop is None or not _is_trusted(hop, trusted):
            break
    return hop


def _last_forwarded(text: str) -> Iterable[Address | None]:
    """Yield the hops of `Forwarded` from the right.

    Each element is the shortest well-formed text that ends where the next one begins. So a quotation mark that a client
    leaves open on the left cannot swallow the elements of the proxies.
    """
    end = len(text)
    while end >= 0:
        comma = text.rfind(",", 0, end)
        while comma >= 0 and not _FORWARDED_ELEMENT.fullmatch(text, comma + 1, end):
            comma = text.rfind(",", 0, comma)
        element = text[comma + 1 : end]
        if not _FORWARDED_ELEMENT.fullmatch(element) or not (found := _FOR.search(element)):
            yield None
            return
        yield _node(found[1] or re.sub(r"\\(.)", r"\1", found[2]))
        end = comma


def _last_forwarded_for(text: str) -> Iterable[Address | None]:
    """Yield the hops of `X-Forwarded-For` from the right."""
    for hop in reversed(text.split(",")):
        yield _address(hop.strip()) or _node(hop.strip())


def _node(text: str) -> Address | None:
    found = _NODE.fullmatch(text)
    return _address(found[1] or found[2]) if found else None


@lru_cache(maxsize=4_096)
def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)
