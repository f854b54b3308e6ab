"""Client addresses as text, and the network or address that a budget counts them under."""

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network

UNKNOWN_ADDRESS = "unknown"
"""Stands for the address of a client whose address is not known, as over a Unix socket."""

IPV6_PREFIX = 64  # bits; a household or a server has at least such a network to itself (RFC 6177 §2)


@lru_cache(maxsize=4_096)
def counted_as(address: str) -> str:
    """Return what a budget counts a client address under: the /64 of an IPv6 address, any other address itself."""
    try:
        parsed = ip_address(address)
    except ValueError:  # unknown
        return address
    return str(IPv6Network((parsed, IPV6_PREFIX), strict=False)) if isinstance(parsed, IPv6Address) else address
