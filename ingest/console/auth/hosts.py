"""The host names and client addresses from which the console accepts requests."""

from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address

from starlette.requests import HTTPConnection

from ingest.console.auth.errors import Forbidden

# Headers that proxies set.
_FORWARDING = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


def is_loopback(name: str) -> bool:
    """Return whether a name or address means this machine, without asking the DNS."""
    if name.lower() == "localhost":
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback


def local_names(listens_on: str) -> Sequence[str]:
    """Return the host names of a console that only this machine may use.

    They prevent DNS rebinding: a page on the internet can let its own name resolve to 127.0.0.1,
    and then request the console as if it were the page's server. The Host header shows that name.
    """
    return ("localhost", "127.0.0.1", "[::1]", as_in_header(listens_on))


def as_in_header(name: str) -> str:
    """Return a name or address as the Host header spells it."""
    return f"[{name}]" if ":" in name and not name.startswith("[") else name


def check_local(connection: HTTPConnection) -> None:
    """Raise Forbidden for a request of another machine, or through a proxy."""
    if any(name in connection.headers for name in _FORWARDING):
        raise Forbidden(
            "Without credentials the console accepts no requests through a proxy.",
            reason="proxied",
        )
    if connection.client is not None and _is_remote(connection.client.host):
        raise Forbidden(
            "Without credentials the console accepts requests of this machine only.",
            reason="client_not_local",
        )


def _is_remote(client: str) -> bool:
    """Return whether an address is another machine's. A Unix socket has no address."""
    try:
        return not is_loopback(str(ip_address(client)))
    except ValueError:
        return False
