"""By which names and from where the console may be asked."""

import re
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address

from ingest.console.access.incoming import Incoming
from ingest.console.access.refusals import Forbidden, Refusal

_HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
# Set by what stands between a client and us.
_FORWARDING = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


def is_loopback(name: str) -> bool:
    """Whether the name or address is this machine for itself, without asking the DNS."""
    if name.lower() == "localhost":
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback


def check_allowed(incoming: Incoming, allowed: frozenset[str]) -> None:
    """The request names one of the allowed hosts, or any when there are none.

    Raises:
        Refusal: it does not.
    """
    name = _name(incoming)
    if allowed and name not in allowed:
        raise Forbidden(
            "The console does not go by this name: see INGEST_CONSOLE_HOSTS.", reason="host_unknown"
        )


def check_local(incoming: Incoming) -> None:
    """The request is of this machine, to this machine by its own name.

    Any page on the internet can have its name point to 127.0.0.1 and then talk to us as if we were
    its server: the name is what gives it away.

    Raises:
        Refusal: it is not.
    """
    if not is_loopback(_name(incoming)):
        raise Forbidden(
            "Without credentials the console goes by localhost and 127.0.0.1 only.",
            reason="host_not_local",
        )
    if any(name in incoming.headers for name in _FORWARDING):
        raise Forbidden(
            "Without credentials the console takes no requests through a proxy.",
            reason="proxied",
        )
    if _is_remote(incoming.client):
        raise Forbidden(
            "Without credentials the console takes requests of this machine only.",
            reason="client_not_local",
        )


def _name(incoming: Incoming) -> str:
    match = _HOST.fullmatch(incoming.headers.get("host", ""))
    if match is None:
        raise Refusal(
            "The Host header is missing or no host.",
            reason="host_bad",
            status=HTTPStatus.BAD_REQUEST,
        )
    return match["name"].strip("[]").lower()


def _is_remote(client: str | None) -> bool:
    """Whether it is an address of another machine; a Unix socket has none."""
    try:
        return client is not None and not is_loopback(str(ip_address(client)))
    except ValueError:
        return False
