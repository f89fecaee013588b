"""Find the client of a request that a proxy forwarded."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def behind(app: "ASGIApp", trusted: Sequence[str]) -> "ASGIApp":
    """Return the application with the client's address in its requests instead of the proxy's.

    X-Forwarded-For is believed from trusted proxies only. The client is the last of its addresses
    that is not a trusted proxy. The client could have written those before it.

    Args:
        app: the application; it reads `scope["client"]`.
        trusted: the addresses and networks of proxies.
    """
    if not trusted:
        return app
    from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

    # uvicorn has its own types for ASGI.
    return ProxyHeadersMiddleware(app, trusted_hosts=list(trusted))  # type: ignore[arg-type,return-value]


class Trusted:
    """The proxies whose word on their clients is believed."""

    def __init__(self, proxies: Sequence[str]) -> None:
        """`proxies` are addresses and networks."""
        self._networks = [ip_network(proxy) for proxy in proxies]

    def client(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return the address of a request's client: that of `peer`, who sent it, or what the
        X-Forwarded-For of trusted proxies says. The names in `headers` are in lower case."""
        if not self._networks or not self._trusts(peer):
            return peer
        values = [value for name, value in headers if name == b"x-forwarded-for"]
        client = peer
        for hop in reversed(b",".join(values).decode("latin-1").split(",")[-_MOST_HOPS:]):
            address = _without_port(hop.strip())
            if address is None:
                return client
            client = address
            if not self._trusts(client):
                return client
        return client

    def _trusts(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:  # the name of a socket
            return False
        forms = {parsed}
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:  # of a socket of both families
            forms.add(parsed.ipv4_mapped)
        return any(form in network for network in self._networks for form in forms)


_MOST_HOPS = 10


def _without_port(hop: str) -> str | None:
    """Return the address of an item of X-Forwarded-For, some of which have a port; None: it has
    none."""
    bare = hop[1:].partition("]")[0] if hop.startswith("[") else hop
    if bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        return str(ip_address(bare))
    except ValueError:
        return None


def check(trusted: str) -> None:
    """Check the address or network of a proxy.

    Raises:
        ValueError: it is neither, or covers every address. The message does not quote it.
    """
    try:
        network = ip_network(trusted)
    except ValueError:
        raise ValueError(
            "must be addresses and networks, `10.0.0.5,192.168.0.0/16`, without bits beyond the"
            " network's length"
        ) from None
    if network.prefixlen == 0:
        raise ValueError("must not be every address: anybody could choose theirs")
