"""The size of the database, and the free space of the folders that this machine can see."""

from collections.abc import Iterator
from pathlib import Path

from ingest.alerts import catalogue, folders
from ingest.console.services import health
from ingest.console.ui.formats import size
from ingest.doctor.findings import Finding, error, note, warning
from ingest.doctor.setup import Setup

DISK_FULL = error("disk_full", "Make room now: deliveries are answered 503 once the disk is full.")
DISK_LOW = warning("disk_low", "Make room, or let bodies go sooner (INGEST_BODY_RETENTION_DAYS).")
DATABASE_SIZE = note("database_size")

_FULL_BYTES = catalogue.default(catalogue.DISK_LOW, "free_bytes")
"""Sixteen segments of the write-ahead log."""
_LOW_SHARE = catalogue.default(catalogue.DISK_LOW, "free_share")


def check(setup: Setup) -> Iterator[Finding]:
    """Say how large the database is, and which of the folders on this machine run out of space."""
    with setup.connected() as connection:
        database_bytes = health.of_database(connection).size_bytes
        on_disks = folders.on_disks(setup.settings, connection)
    yield DATABASE_SIZE.found(f"The database has {size(database_bytes)}.")
    for path in on_disks:
        yield from _space(setup, path)


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
