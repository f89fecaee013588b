"""A migrated database for the tests of a session."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from psycopg import sql

from ingest.local import postgres, process
from ingest.store import migrations, partitions
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine

_STARTS_WITHIN_S = 120
_FORGETFUL = ("fsync=off", "full_page_writes=off", "synchronous_commit=on")
"""Nothing of a test's database has to survive."""
_DAYS_AHEAD = 2


@contextmanager
def prepared(server: str | None, tables: str) -> Iterator[str]:
    """Yield the address of a new database with the pipeline's schema, dropped at the end.

    Args:
        server: the address of a PostgreSQL on which the role may create databases; None: start one
            of our own.
        tables: SQL that makes the application's own tables; may be empty.

    Raises:
        EmbeddedError: no PostgreSQL is installed.
    """
    with _embedded() if server is None else _on(server) as url:
        engine = create_engine(parse(url), role=Role.MIGRATION)
        try:
            with engine.connect() as connection:
                migrations.upgrade(connection)
            with engine.begin() as connection:
                today = datetime.now(UTC).date()
                partitions.ensure(connection, today=today, days_ahead=_DAYS_AHEAD)
        finally:
            engine.dispose()
        if tables.strip():
            with psycopg.connect(url, autocommit=True) as plain:
                plain.execute(tables.encode())
        yield url


@contextmanager
def _embedded() -> Iterator[str]:
    home = Path(tempfile.mkdtemp(prefix="ingest-test-"))
    sockets = home / "run"
    try:
        sockets.mkdir(mode=0o700)
        (home / "logs").mkdir()
        program = postgres.program(home, sockets, settings=_FORGETFUL)
        server = process.spawn(program)
        try:
            process.wait_until_ready(program, server, timeout_s=_STARTS_WITHIN_S)
            yield postgres.url(sockets)
        finally:
            process.stop(program, server)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _on(server: str) -> Iterator[str]:
    name = sql.Identifier(database := f"ingest_test_{uuid4().hex}")
    parameters: dict[str, Any] = dict(parse(server).parameters)
    with psycopg.connect(**parameters, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        try:
            yield _address(server, database)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def _address(server: str, database: str) -> str:
    """Return the address of another database on a server, which a socket may name: such an address
    has no host, and `urlunsplit` would leave its slashes out."""
    parts = urlsplit(server)
    query = f"?{parts.query}" if parts.query else ""
    return f"postgresql://{parts.netloc}/{database}{query}"  # libpq knows no other scheme
