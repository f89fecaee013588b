"""Find the client of a request that a proxy forwarded."""

from collections.abc import Sequence
from ipaddress import ip_network
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
