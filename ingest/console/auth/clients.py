"""Where a request is from, as attempts to log in are counted."""

from ipaddress import IPv6Address, IPv6Network, ip_address

from starlette.requests import Request

_LONGEST = 64
_IPV6_PREFIX = 64  # the smallest network that a subscriber gets


def address(request: Request) -> str:
    """Return the client's address; `-`: a Unix socket has none."""
    return request.client.host if request.client else "-"


def network(request: Request) -> str:
    """Return what one attacker controls: an address, or with IPv6 a whole network."""
    text = address(request)
    try:
        parsed = ip_address(text)
    except ValueError:  # a trusted proxy may forward any text
        return text[:_LONGEST]
    if isinstance(parsed, IPv6Address) and not parsed.ipv4_mapped:
        return str(IPv6Network((int(parsed), _IPV6_PREFIX), strict=False))
    return text
