"""Which addresses are the internet's: what a name that others control may lead to."""

import ipaddress
from ipaddress import IPv4Address, IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""Stands for an IPv4 address, in its last 32 bits (RFC 6052)."""
_SPECIAL = (
    # Of IANA's registries of special addresses, which each release of Python knows otherwise.
    ipaddress.ip_network("192.0.0.0/24"),
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("100::/64"),
    ipaddress.ip_network("2001::/23"),
    ipaddress.ip_network("3fff::/20"),
    ipaddress.ip_network("5f00::/16"),
    # Looks like any other, and leads to the machine's own cloud: Azure's.
    ipaddress.ip_network("168.63.129.16/32"),
)


def is_address(text: str) -> bool:
    """Return whether a text is an IP address, and no name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_public(text: str) -> bool:
    """Return whether an address is of the internet: not of this machine, of its network, of its
    cloud's metadata, of many at once, or reserved. What is no address is not."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return all(_is_public(part) for part in (address, *_meant(address)))


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address) and address in _NAT64:
        return True  # as far as the address in it is
    is_special = (
        address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or (isinstance(address, IPv6Address) and address.is_site_local)
    )
    is_listed = any(address in network for network in _SPECIAL)
    return address.is_global and not is_special and not is_listed


def _meant(address: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address leads to."""
    if isinstance(address, IPv4Address):
        return []
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        inner.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [part for part in inner if part is not None]
