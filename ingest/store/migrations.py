"""Migrations: bring a database's schema up to date, each revision in a transaction of its own.

The pipeline has a schema of its own, which holds Alembic's version table too. So an application
that shares the database keeps its own `alembic_version`. Installations from before revision 0005
have their tables where the search path led; they are moved (ingest.store.schema_move).

A revision's locks end with it. In one transaction with the others, that of `deliveries` would be
kept while a later revision reads all jobs, and receivers would answer 503. A revision is made whole
or not at all, and the next migration goes on from there.

Old and new code run side by side during a deploy. So a revision adds what new code needs and leaves
what old code uses, which a later release removes (docs/upgrading.md). Each revision records in
`ingest.revisions` the oldest code that runs on it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError

import ingest
from ingest.errors import MigrationRefused
from ingest.store import partitions, schema_move
from ingest.store.address import SCHEMA
from ingest.store.schema import READ_MODEL, metadata
from ingest.store.sql import quoted, statement

_INSTALLED = Path(ingest.__file__).parent / "_migrations"
_CHECKOUT = Path(ingest.__file__).parent.parent / "migrations"

# With this lock, a second `ingest migrate` waits for the first and then has nothing to do.
_LOCK_KEY = 0x696E67657374  # "ingest"
# Changing a table that receivers use needs its lock, and they wait behind whoever waits for it, 1 s
# at most. So a migration waits 200 ms for a lock, and is repeated. (With 4 s, a migration of three
# hot tables under load made receivers answer 503, 32 times.)
_LOCK_TRIES = 150
_LOCK_PAUSE_S = 0.25
_PATIENCE = statement("SET LOCAL lock_timeout = '200ms'")
_STATEMENT_TIMEOUT = statement("SELECT pg_catalog.current_setting('statement_timeout')")
_SET_STATEMENT_TIMEOUT = statement(
    "SELECT pg_catalog.set_config('statement_timeout', :longest, true)"
)
_TABLES_IN_USE = (
    "Somebody keeps the pipeline's tables locked (a dump, an open transaction):"
    " migrate again when that has ended. It goes on from where it is."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What to migrate a database to."""

    schema: str = SCHEMA
    read_model: bool = True
    """Whether to make the tables of the built-in read model."""
    scripts: Path | None = None
    """The folder of the migrations; None: those of this code."""


_DEFAULT = Target()


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The revision of a database."""

    revision: str | None
    """None: the database has no tables of the pipeline."""
    newest: str
    """The newest revision that this code knows."""
    is_newer: bool = False
    """Whether a later release has migrated it; this code runs on it."""


_LEFT_TO_THE_RELAY = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.QueryCanceled,
    psycopg.errors.CheckViolation,
)


def prepare(engine: Engine, target: Target = _DEFAULT, *, today: date, days_ahead: int) -> bool:
    """Run every missing migration and make the partitions of the coming days.

    Return whether the partitions exist. Behind a long reader (a dump), or where it takes too
    long, they are left to the relay: a start must not fail for them, and nothing is lost meanwhile.

    Raises:
        MigrationRefused: this database cannot be migrated; the revisions made so far stay.
        SQLAlchemyError: PostgreSQL is away or refuses, or a table stays locked.
    """
    with engine.connect() as connection:
        upgrade(connection, target=target)
    try:
        partitions.show_absent(engine, today=today, days_ahead=days_ahead)
        with engine.begin() as connection:
            partitions.ensure(connection, today=today, days_ahead=days_ahead)
    except DBAPIError as error:
        if not isinstance(error.orig, _LEFT_TO_THE_RELAY):
            raise
        return False
    return True


def upgrade(connection: Connection, revision: str = "head", *, target: Target = _DEFAULT) -> None:
    """Run the missing migrations up to `revision`; concurrent callers wait for each other.

    A schema that a later release has migrated stays as it is, if this code runs on it.

    Raises:
        MigrationRefused: this database cannot be migrated; the revisions made so far stay.
        SQLAlchemyError: PostgreSQL refuses the next revision; those made so far stay.
    """
    while _patiently(connection, revision, target):
        pass


def _patiently(connection: Connection, revision: str, target: Target) -> bool:
    """Take the next step, as often as its locks are refused. Return whether there is another."""
    tries_left = _LOCK_TRIES
    while True:
        tries_left -= 1
        try:
            return _step(connection, revision, target)
        except OperationalError as error:
            connection.rollback()
            if not isinstance(error.orig, psycopg.errors.LockNotAvailable):
                raise
            if not tries_left:
                raise MigrationRefused(_TABLES_IN_USE, reason="tables_in_use") from error
            time.sleep(_LOCK_PAUSE_S)


def _step(connection: Connection, revision: str, target: Target) -> bool:
    """Make what is missing next, in one transaction. Return whether more is missing."""
    with connection.begin():
        take_turns(connection)
        found = state(connection, target)
        if found.is_newer:
            return False
        old_home = schema_move.old_home(connection, target.schema)
        if old_home is not None:
            _leave(connection, old_home, target)
            return True
        following = _following(found, revision, target)
        _run(connection, command.upgrade, following, target)
        return following != revision


def _leave(connection: Connection, old_home: str, target: Target) -> None:
    """Bring an installation up to the last revision before the move, or else move it."""
    if schema_move.is_before_last(connection, old_home):
        _run(connection, command.upgrade, schema_move.LAST, target, home=old_home)
        return
    ensure_schema(connection, target.schema)
    schema_move.move(connection, old_home, target.schema)
    _run(connection, command.upgrade, schema_move.FIRST_IN_SCHEMA, target)


def _following(found: State, revision: str, target: Target) -> str:
    """Return the revision to go to in one transaction: the next one, or `revision` at the end.

    An empty database gets all at once: nobody waits for the locks of tables that are not there.
    """
    script = ScriptDirectory.from_config(config(target.scripts))
    missing = list(script.iterate_revisions(revision, found.revision))  # the newest first
    if found.revision is None or len(missing) < 2:
        return revision
    return missing[-1].revision


def downgrade(connection: Connection, revision: str, *, target: Target = _DEFAULT) -> None:
    """Undo migrations down to `revision`. This drops data; it is for development."""
    with connection.begin():
        take_turns(connection)
        _run(connection, command.downgrade, revision, target)


_RUNS_ON = statement(
    """
    SELECT oldest_code <= CAST(:code AS text) FROM ingest.revisions WHERE revision = :revision
    """
)


def state(connection: Connection, target: Target = _DEFAULT) -> State:
    """Return the revision of the database.

    Raises:
        MigrationRefused: a later release has migrated it, and this code does not run on it.
    """
    script = ScriptDirectory.from_config(config(target.scripts))
    newest = script.get_current_head()
    assert newest is not None
    home = schema_move.old_home(connection, target.schema) or target.schema
    options = {"version_table_schema": home}
    current = MigrationContext.configure(connection, opts=options).get_current_revision()
    known = {revision.revision for revision in script.walk_revisions()}
    if current is None or current in known:
        return State(revision=current, newest=newest)
    runs_on = connection.execute(_RUNS_ON, {"revision": current, "code": newest}).scalar()
    if not runs_on:
        raise MigrationRefused(
            f"The schema is newer ({current}) than this code ({newest}), which does not run on it:"
            " install the later release again.",
            reason="schema_newer",
        )
    return State(revision=current, newest=newest, is_newer=True)


def config(scripts: Path | None = None) -> Config:
    """Return Alembic's configuration for the migrations in `scripts`, or of this code."""
    alembic = Config()
    folder = scripts or (_INSTALLED if _INSTALLED.exists() else _CHECKOUT)
    alembic.set_main_option("script_location", str(folder).replace("%", "%%"))
    return alembic


def take_turns(connection: Connection) -> None:
    """Wait until no other migration runs, and exclude others until the transaction ends.

    The other may take half an hour, so no time-out holds meanwhile.
    """
    longest = connection.execute(_STATEMENT_TIMEOUT).scalar_one()
    connection.execute(statement("SET LOCAL lock_timeout = 0"))
    connection.execute(statement("SET LOCAL statement_timeout = 0"))
    connection.execute(statement("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
    connection.execute(_PATIENCE)
    connection.execute(_SET_STATEMENT_TIMEOUT, {"longest": longest})


def _run(
    connection: Connection,
    run: Callable[[Config, str], None],
    revision: str,
    target: Target,
    *,
    home: str | None = None,
) -> None:
    """Run Alembic in the open transaction, on the tables in `home`."""
    home = home or target.schema
    ensure_schema(connection, home)
    alembic = config(target.scripts)
    alembic.attributes.update(connection=connection, home=home, read_model=target.read_model)
    run(alembic, revision)
    if target.read_model and revision == "head":
        metadata.create_all(
            connection.execution_options(schema_translate_map={SCHEMA: home}), tables=READ_MODEL
        )


def ensure_schema(connection: Connection, schema: str) -> None:
    """Make the schema if it is missing; the transaction's new tables are made in it.

    A role that may not make a schema can still be given one.
    """
    exists = connection.execute(
        statement("SELECT to_regnamespace(:schema) IS NOT NULL"), {"schema": quoted(schema)}
    )
    if not exists.scalar_one():
        _check_may_create(connection, schema)
        connection.execute(statement(f"CREATE SCHEMA {quoted(schema)}"))
    connection.execute(statement(f"SET LOCAL search_path = {quoted(schema)}"))


def _check_may_create(connection: Connection, schema: str) -> None:
    may_create = connection.execute(
        statement("SELECT has_database_privilege(current_database(), 'CREATE')")
    )
    if not may_create.scalar_one():
        raise MigrationRefused(
            f"The role may not make the schema {schema} in this database. Whoever may runs CREATE"
            f" SCHEMA {schema} AUTHORIZATION … for the role, and then it is migrated again.",
            reason="may_not_create_schema",
        )
