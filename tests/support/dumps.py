"""Dumping and restoring databases by PostgreSQL's own programs, and comparing what they hold."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, text

from tests.conftest import Servers

_TABLES = text(
    """
    SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relkind = 'r' ORDER BY 1
    """
)
_SEQUENCES = text(
    "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = :schema ORDER BY 1"
)


def dump(servers: Servers, url: str, file: Path, *options: str) -> None:
    """Dump a database into a file in the custom format."""
    _run([servers.binaries / "pg_dump", "-Fc", *options, "-f", file, url])


def restore(servers: Servers, url: str, file: Path, *options: str) -> None:
    """Restore a file into a database; the first error ends it."""
    _run([servers.binaries / "pg_restore", "--exit-on-error", *options, "-d", url, file])


def fingerprints(connection: Connection, schema: str = "ingest") -> dict[str, str]:
    """Return a digest of the rows of each table and partition, generated columns included."""
    connection.execute(text("SET LOCAL search_path = pg_catalog"))
    names = connection.execute(_TABLES, {"schema": schema}).scalars().all()
    query = (
        "SELECT count(*) || ' ' || coalesce(md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))"
        "), '') FROM {} AS t"
    )
    return {name: connection.execute(text(query.format(name))).scalar_one() for name in names}


def sequences(connection: Connection, schema: str = "ingest") -> dict[str, int | None]:
    """Return the last value of each sequence; None: not used yet."""
    found = connection.execute(_SEQUENCES, {"schema": schema})
    return {row.sequencename: row.last_value for row in found}


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
