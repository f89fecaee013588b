"""By which names and from where the console may be asked."""

from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address

from starlette.requests import HTTPConnection

from ingest.console.auth.errors import Forbidden

# Set by what stands between a client and us.
_FORWARDING = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


def is_loopback(name: str) -> bool:
    """Return whether a name or address is this machine for itself, without asking the DNS."""
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
    """Return the names of a console that only this machine may ask.

    Any page on the internet can have its name point to 127.0.0.1 and then talk to the console as if
    it were the page's own server: the name is what gives it away.
    """
    return ("localhost", "127.0.0.1", "[::1]", as_in_header(listens_on))


def as_in_header(name: str) -> str:
    """Return a name or address as the Host header has it."""
    return f"[{name}]" if ":" in name and not name.startswith("[") else name


def check_local(connection: HTTPConnection) -> None:
    """Refuse a request of another machine, or one that a proxy hands on.

    Raises:
        Forbidden: it is one.
    """
    if any(name in connection.headers for name in _FORWARDING):
        raise Forbidden(
            "Without credentials the console takes no requests through a proxy.",
            reason="proxied",
        )
    if connection.client is not None and _is_remote(connection.client.host):
        raise Forbidden(
            "Without credentials the console takes requests of this machine only.",
            reason="client_not_local",
        )


def _is_remote(client: str) -> bool:
    """Return whether it is an address of another machine; a Unix socket has none."""
    try:
        return not is_loopback(str(ip_address(client)))
    except ValueError:
        return False
