"""Ports of this machine that a test may have for itself."""

import fcntl
import os
import socket
import tempfile
from itertools import count
from pathlib import Path

_LINUX_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
# 10080 and what is below 6698 is closed to browsers and to fetch.
_LOWEST = 12_000
_HIGHEST = 65_535
_ENOUGH = 1_000
_LAST_PORT = Path(tempfile.gettempdir()) / f"ingest-tests-last-port-{os.getuid()}"


def free_port() -> int:
    """Return a port that nobody listens on and that nobody else is given soon.

    A server binds it seconds later, or again after a stop. Until then no connection may
    take it: the port lies outside the range that the kernel takes the ports of outgoing
    connections from. No other test is given it: all processes of this user go through the
    ports one after another, and begin again when the last is reached.
    """
    ports = _server_ports()
    with _LAST_PORT.open("a+") as last:
        fcntl.flock(last, fcntl.LOCK_EX)
        last.seek(0)
        start = int(last.read() or ports[0]) - ports[0] + 1
        port = next(port for n in count(start) if _is_free(port := ports[n % len(ports)]))
        last.truncate(0)
        last.write(str(port))
    return port


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
