"""Bringing a database's schema up to date."""

from datetime import date
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

import ingest
from ingest.store import partitions

_INSTALLED = Path(ingest.__file__).parent / "_migrations"
_CHECKOUT = Path(ingest.__file__).parent.parent / "migrations"


def config() -> Config:
    """Alembic's configuration for the migrations that belong to this code."""
    alembic = Config()
    folder = _INSTALLED if _INSTALLED.exists() else _CHECKOUT
    alembic.set_main_option("script_location", str(folder).replace("%", "%%"))
    return alembic


def prepare(engine: Engine, *, today: date, days_ahead: int) -> bool:
    """Run every missing migration and make the partitions of the coming days.

    Returns whether the partitions are there. Behind a long reader (a dump) they are left to the
    relay, and nothing is lost meanwhile: a start must not fail for them.

    Raises:
        SQLAlchemyError: PostgreSQL is away, refuses, or somebody keeps a table locked.
    """
    with engine.connect() as connection:
        upgrade(connection)
    try:
        with engine.begin() as connection:
            partitions.ensure(connection, today=today, days_ahead=days_ahead)
    except OperationalError as error:
        if not isinstance(error.orig, psycopg.errors.LockNotAvailable):
            raise
        return False
    return True


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run what is missing up to `revision`; two at once wait for each other."""
    alembic = config()
    alembic.attributes["connection"] = connection
    command.upgrade(alembic, revision)


def downgrade(connection: Connection, revision: str) -> None:
    """Undo down to `revision`. Drops data; for development."""
    alembic = config()
    alembic.attributes["connection"] = connection
    command.downgrade(alembic, revision)


def revisions(connection: Connection) -> tuple[str | None, str | None]:
    """The database's revision and the newest that this code knows."""
    current = MigrationContext.configure(connection).get_current_revision()
    return current, ScriptDirectory.from_config(config()).get_current_head()
