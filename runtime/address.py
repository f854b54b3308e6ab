"""Client addresses as text, and what they are counted under."""

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address

UNKNOWN_ADDRESS = "unknown"
"""The address of a client that is not known, as over a Unix socket."""

IPV6_PREFIX = 64  # bits; a household or a server has at least such a network to itself (RFC 6177 §2)


@lru_cache(maxsize=4_096)
def counted_as(address: str) -> str:
    """Return what a client address is counted under: its network if it is IPv6, else itself."""
    try:
        parsed = ip_address(address)
    except ValueError:  # unknown
        return address
    return str(IPv6Network((parsed, IPV6_PREFIX), strict=False)) if isinstance(parsed, IPv6Address) else address
