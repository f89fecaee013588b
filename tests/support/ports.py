"""Ports of this machine that a test may have for itself."""

import errno
import fcntl
import os
import socket
import tempfile
from pathlib import Path
from secrets import randbelow

_LINUX_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
# 10080 and what is below 6698 is closed to browsers and to fetch.
_LOWEST = 12_000
_HIGHEST = 65_535
_ENOUGH = 1_000
_LAST_PORT = Path(tempfile.gettempdir()) / f"ingest-tests-last-port-{os.getuid()}"


def free_port() -> int:
    """Return a port that nobody listens on and that no other test is given soon.

    A server binds it seconds later, or again after a stop. Until then no connection may take it:
    the port lies outside the range that the kernel takes the ports of outgoing connections from.
    All processes of this user with the same folder for temporary files go through the ports one
    after another, and begin again when the last is reached.

    Raises:
        OSError: none can be bound.
    """
    ports = _server_ports()
    with _LAST_PORT.open("a+") as last:
        fcntl.flock(last, fcntl.LOCK_EX)
        last.seek(0)
        place = _place_of(last.read(), ports)
        for offset in range(1, len(ports) + 1):
            port = ports[(place + offset) % len(ports)]
            if _is_free(port):
                last.truncate(0)
                last.write(str(port))
                return port
    raise OSError(errno.EADDRINUSE, f"no port from {ports[0]} to {ports[-1]} can be bound")


def _place_of(text: str, ports: range) -> int:
    """Return the place of the last port that was given; any, if the text is none."""
    try:
        return ports.index(int(text))
    except ValueError:
        return randbelow(len(ports))


def _server_ports() -> range:
    """Return the wider side of the kernel's range; all ports where it leaves too few."""
    if not _LINUX_RANGE.exists():  # macOS takes from 49152 onwards
        return range(_LOWEST, 49_152)
    low, high = map(int, _LINUX_RANGE.read_text().split())
    widest = max(range(_LOWEST, low), range(max(high + 1, _LOWEST), _HIGHEST + 1), key=len)
    return widest if len(widest) >= _ENOUGH else range(_LOWEST, _HIGHEST + 1)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
