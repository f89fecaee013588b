"""Open listening sockets before anything else starts, so that a taken port is reported at once."""

import socket

from ingest.cli.database import CommandError

# Connections that may wait to be accepted; the kernel's own limit is often 4096.
_BACKLOG = 2048


def listen(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """Return a socket that listens on `host` and `port`.

    The error message names `option`, with which the user chooses another port.

    Raises:
        CommandError: the port is taken, or this machine does not have the address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise CommandError(
            f"Cannot listen on {host}:{port} ({error.strerror}): choose another with {option}.",
            reason="port_taken",
        ) from None
    except (TypeError, ValueError):  # from Python's codec of host names
        raise CommandError(
            f"Cannot listen on {host!r}: it is not a host name.", reason="bad_host"
        ) from None
