"""Sockets, opened before anything else starts, so that a taken port is said at once."""

import socket

from ingest.cli.database import CommandError

# Connections that may wait to be accepted; the kernel's own limit is often 4096.
_BACKLOG = 2048


def listen(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """A socket that listens on `host` and `port`; `option` chooses another port.

    Raises:
        CommandError: the port is taken, the address is not ours, or is none.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise CommandError(
            f"Cannot listen on {host}:{port} ({error.strerror}): choose another with {option}.",
            reason="port_taken",
        ) from None
    except (TypeError, ValueError):  # as Python's codec of host names refuses
        raise CommandError(
            f"Cannot listen on {host!r}: it is no name of a host.", reason="bad_host"
        ) from None
