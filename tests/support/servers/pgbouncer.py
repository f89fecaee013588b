"""PgBouncer in front of a PostgreSQL, reached by a socket."""

import shutil
import socket
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from ingest.local import identity
from ingest.local.process import Program

Mode = Literal["session", "transaction"]
_PORT = 6432  # names the socket, nobody listens there


def find_binary() -> Path | None:
    """Return where PgBouncer is; None: not here."""
    name = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    return Path(name) if name else None


def program(
    home: Path,
    sockets: Path,
    *,
    binary: Path,
    mode: Mode,
    user: str,
    ignored: str = "",
    pool_size: int = 20,
) -> Program:
    """Return a PgBouncer whose socket is beside the server's, for every database of the server.

    Args:
        home: an absolute folder of ours.
        sockets: the folder of the server's socket.
        binary: PgBouncer's.
        mode: its `pool_mode`.
        user: the role that it logs in as, whoever comes.
        ignored: its `ignore_startup_parameters`.
        pool_size: its `default_pool_size`; 20 is its own default.
    """
    folder = home / f"pgbouncer-{mode}"
    folder.mkdir()
    who = identity.for_postgres(home, folder, binary)
    who.own(folder)
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        f"""
[databases]
* = host={sockets} user={user}

[pgbouncer]
listen_addr =
listen_port = {_PORT}
unix_socket_dir = {folder}
auth_type = any
pool_mode = {mode}
default_pool_size = {pool_size}
max_client_conn = 500
ignore_startup_parameters = {ignored}
"""
    )
    return Program(
        name="pgbouncer",
        command=[str(binary), "--quiet", str(configuration)],
        log=home / "logs" / f"pgbouncer-{mode}.log",
        ready=lambda _pid: _accepts(folder / f".s.PGSQL.{_PORT}"),
        identity=who,
    )


def url(home: Path, mode: Mode, database: str, *, user: str) -> str:
    """Return the address of a database through the PgBouncer of that mode in `home`."""
    folder = quote(str(home / f"pgbouncer-{mode}"), safe="")
    return f"postgresql://{user}@/{database}?host={folder}&port={_PORT}"


def _accepts(address: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(address))
    except OSError:
        return False
    return True
