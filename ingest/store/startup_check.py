"""Whether a process may start on its database."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from ingest import logs
from ingest.errors import SettingsError
from ingest.store import causes
from ingest.store.address import Database
from ingest.store.causes import Cause
from ingest.store.encryption import gate
from ingest.store.engine import Role, create_engine

_FINAL = frozenset(
    {
        "server_too_old",
        "database_not_utf8",
        "schema_newer",
        "foreign_version_table",
        "encryption_not_begun",
        "older_worker",
    }
)
"""Reasons that do not go away by waiting."""

log = logs.logger(__name__)


def check(database: Database, *, reads_bodies: bool = False, writes_bodies: bool = False) -> None:
    """Refuse a database that answers and is unfit; log a warning if it is not migrated, or if this
    process lacks a key of bodies.

    An unreachable database does not stop the start: deliveries are answered 503 until it is back.

    Args:
        database: with the keys of bodies that this process has.
        reads_bodies: whether the process needs all keys that are in use.
        writes_bodies: whether it stores bodies, encrypted where it has keys.

    Raises:
        SettingsError: the database is too old, not UTF8, or its schema is newer than this code and
            this code does not run on it; or no body may be encrypted yet.
    """
    problem = _problem_of(database, _warn_if_not_migrated)
    if problem is not None and problem.reason != "privilege_missing":
        return  # the parts of the process meet the error again, and log it
    if reads_bodies:
        _problem_of(database, _check_keys)
    if writes_bodies:
        _problem_of(database, _begin_encryption)


def _problem_of(database: Database, step: Callable[[Database], None]) -> Cause | None:
    """Return why a step failed. Raise SettingsError if that does not go away by waiting."""
    try:
        step(database)
    except Exception as error:
        cause = causes.explain(error, database)
        if cause.reason in _FINAL:
            raise SettingsError(cause.sentence, reason=cause.reason) from error
        return cause
    return None


def _warn_if_not_migrated(database: Database) -> None:
    if not _is_migrated(database):
        log.warning(
            "not_migrated", cause=f"The database {database} is not migrated: run `ingest migrate`."
        )


def _check_keys(database: Database) -> None:
    with _connected(database) as connection:
        missing = gate.missing(connection)
    if missing:
        log.error("body_keys_missing", keys=missing, cause=_MISSING)


def _begin_encryption(database: Database) -> None:
    with _connected(database) as connection:
        if database.body_keys.newest is not None:
            gate.begin(connection)
        elif gate.used(connection):
            log.warning("bodies_in_clear", cause=_IN_CLEAR)


@contextmanager
def _connected(database: Database) -> Iterator[Connection]:
    engine = create_engine(database, role=Role.OPERATOR)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


_MISSING = (
    "Bodies in the database are encrypted with keys that INGEST_BODY_KEYS does not have here. Jobs"
    " of such bodies wait for a process that has them."
)
_IN_CLEAR = "This receiver has no keys and stores bodies in clear, where others encrypt them."


def _is_migrated(database: Database) -> bool:
    with _connected(database) as connection:
        from ingest.store import migrations  # Alembic takes a while to import

        state = migrations.state(connection, migrations.Target(schema=database.schema))
    return state.is_newer or state.revision == state.newest
