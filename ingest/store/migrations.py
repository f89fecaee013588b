"""Bringing a database's schema up to date."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

import ingest

_INSTALLED = Path(ingest.__file__).parent / "_migrations"
_CHECKOUT = Path(ingest.__file__).parent.parent / "migrations"


def config() -> Config:
    """Alembic's configuration for the migrations that belong to this code."""
    alembic = Config()
    folder = _INSTALLED if _INSTALLED.exists() else _CHECKOUT
    alembic.set_main_option("script_location", str(folder).replace("%", "%%"))
    return alembic


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
