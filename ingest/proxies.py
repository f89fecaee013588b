"""Whose request it is, where a proxy hands it on."""

from collections.abc import Sequence
from ipaddress import ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def behind(app: "ASGIApp", trusted: Sequence[str]) -> "ASGIApp":
    """Return the application, its requests with the address of the client instead of the proxy's.

    X-Forwarded-For is believed from trusted proxies only. Of its addresses, the last one that is
    not a trusted proxy's counts: what stands before it, the client may have written.

    Args:
        app: looks at `scope["client"]`.
        trusted: the addresses and networks of proxies.
    """
    if not trusted:
        return app
    from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

    # uvicorn has types of its own for ASGI.
    return ProxyHeadersMiddleware(app, trusted_hosts=list(trusted))  # type: ignore[arg-type,return-value]


def check(trusted: str) -> None:
    """Refuse what is no address or network of a proxy.

    Raises:
        ValueError: with a sentence that does not show it.
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
