"""Whether a process may start on its database."""

from ingest import logs
from ingest.errors import SettingsError
from ingest.store import causes
from ingest.store.address import Database
from ingest.store.engine import Role, create_engine

_FINAL = frozenset({"server_too_old", "database_not_utf8", "schema_newer", "foreign_version_table"})
"""Reasons that do not go away by waiting."""

log = logs.logger(__name__)


def check(database: Database) -> None:
    """Refuse a database that answers and is unfit; log a warning if it is not migrated.

    An unreachable database does not stop the start: deliveries are answered 503 until it is back.

    Raises:
        SettingsError: the database is too old, not UTF8, or its schema is newer than this code and
            this code does not run on it.
    """
    try:
        is_migrated = _is_migrated(database)
    except Exception as error:
        cause = causes.explain(error, database)
        if cause.reason in _FINAL:
            raise SettingsError(cause.sentence, reason=cause.reason) from error
        return  # the parts of the process meet the error again, and log it
    if not is_migrated:
        log.warning(
            "not_migrated", cause=f"The database {database} is not migrated: run `ingest migrate`."
        )


def _is_migrated(database: Database) -> bool:
    engine = create_engine(database, role=Role.OPERATOR)
    try:
        with engine.connect() as connection:
            from ingest.store import migrations  # Alembic takes a while to import

            state = migrations.state(connection, migrations.Target(schema=database.schema))
    finally:
        engine.dispose()
    return state.is_newer or state.revision == state.newest
