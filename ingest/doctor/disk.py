"""The size of the database, and the free space of the folders that this machine can see."""

from collections.abc import Iterator
from pathlib import Path

from ingest.console.services import health
from ingest.console.ui.formats import size
from ingest.doctor.findings import Finding, error, note, warning
from ingest.doctor.setup import Setup
from ingest.store.sql import statement

DISK_FULL = error("disk_full", "Make room now: deliveries are answered 503 once the disk is full.")
DISK_LOW = warning("disk_low", "Make room, or let bodies go sooner (INGEST_BODY_RETENTION_DAYS).")
DATABASE_SIZE = note("database_size")

_FULL_BYTES = 256 * 1024**2
"""Sixteen segments of the write-ahead log."""
_LOW_SHARE = 0.1
_LOCAL = ("", "localhost", "127.0.0.1", "::1")
# No row for a role that may not read it.
_FOLDER = statement("SELECT setting FROM pg_settings WHERE name = 'data_directory'")


def check(setup: Setup) -> Iterator[Finding]:
    """Say how large the database is, and which of the folders on this machine run out of space."""
    with setup.connected() as connection:
        database_bytes = health.of_database(connection).size_bytes
        folder = connection.execute(_FOLDER).scalar()
    yield DATABASE_SIZE.found(f"The database has {size(database_bytes)}.")
    folders = [setup.settings.data]
    if folder and _is_local(setup):
        folders.append(Path(folder))
    for path in folders:
        yield from _space(setup, path)


def _is_local(setup: Setup) -> bool:
    host = setup.settings.database.parameters.get("host", "")
    return host.startswith("/") or host in _LOCAL


def _space(setup: Setup, path: Path) -> Iterator[Finding]:
    try:
        free, share = setup.free_space(path)
    except OSError:  # it is not here, or not for us
        return
    sentence = f"{path} has {size(free)} left, {share:.0%} of its disk."
    if free < _FULL_BYTES:
        yield DISK_FULL.found(sentence)
    elif share < _LOW_SHARE:
        yield DISK_LOW.found(sentence)
