"""The revision of the schema against that of this code, and privileges by name."""

from collections.abc import Iterator

from sqlalchemy.exc import SQLAlchemyError

from ingest.doctor.findings import Finding, error, listed, note, warning
from ingest.doctor.setup import Setup
from ingest.errors import MigrationRefused
from ingest.store import migrations, privileges
from ingest.store.migrations import State
from ingest.store.reports import heartbeats

NOT_MIGRATED = error("not_migrated", "Run `ingest migrate`.")
SCHEMA_NEWER = error(
    "schema_newer", "Install the later release again, or restore a dump of before the migration."
)
SCHEMA_UNUSABLE = error("schema_unusable", "Look at docs/upgrading.md.")
SCHEMA_AHEAD = warning("schema_ahead", "Deploy the release that has migrated the database.")
REVISION = note("schema_revision")
PRIVILEGE_MISSING = error(
    "privilege_missing", "Grant it to the role of that process: docs/database.md, Roles."
)


def revision(setup: Setup) -> Iterator[Finding]:
    """Compare the revision of the schema with the one that this code needs."""
    database = setup.settings.database
    try:
        with setup.connected() as connection:
            state = migrations.state(connection, migrations.Target(schema=database.schema))
    except MigrationRefused as problem:
        kind = SCHEMA_NEWER if problem.reason == SCHEMA_NEWER.slug else SCHEMA_UNUSABLE
        yield kind.found(str(problem))
    else:
        yield _compare(state, f"The schema {database.schema} in the database {database}")


def _compare(state: State, schema: str) -> Finding:
    if state.is_newer:
        return SCHEMA_AHEAD.found(
            f"{schema} is at {state.revision}, newer than this code ({state.newest}), which runs"
            " on it."
        )
    if state.revision is None:
        return NOT_MIGRATED.found(f"{schema} has no tables of the pipeline.")
    if state.revision != state.newest:
        return NOT_MIGRATED.found(
            f"{schema} is at {state.revision}; this code needs {state.newest}."
        )
    return REVISION.found(f"{schema} is at {state.revision}, as this code needs it.")


def lacking(setup: Setup) -> Iterator[Finding]:
    """Ask what the role of each kind of process may not do.

    Processes may have roles of their own. What running ones lack they have reported themselves; for
    the kinds that do not run, the role of this command is asked.
    """
    schema = setup.settings.database.schema
    with setup.connected() as connection:
        lacks = {
            kind: privileges.lacking(connection, kind, schema=schema) for kind in privileges.NEEDS
        }
    for predicate, kinds in _by_predicate(lacks | _reported(setup)).items():
        yield PRIVILEGE_MISSING.found(f"The database role {predicate}. Needed by: {listed(kinds)}.")


def _reported(setup: Setup) -> dict[str, list[str]]:
    """Return what the running processes lack, by their kind."""
    lacks: dict[str, list[str]] = {}
    try:
        with setup.connected() as connection:
            processes = heartbeats.all_of_them(connection)
    except SQLAlchemyError:  # not migrated, or not permitted: both have findings of their own
        return {}
    for process in processes:
        if process.alive:
            known = lacks.setdefault(process.kind, [])
            known += [predicate for predicate in process.lacks if predicate not in known]
    return lacks


def _by_predicate(lacks: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the kinds of processes by what they lack."""
    kinds: dict[str, list[str]] = {}
    for kind, predicates in lacks.items():
        for predicate in predicates:
            kinds.setdefault(predicate, []).append(kind)
    return kinds
