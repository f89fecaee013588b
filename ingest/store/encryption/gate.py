"""What comes before the first body that a key encrypts.

Code of before revision 0015 would take an encrypted body for the sender's. So it is refused its
start on this database (ingest.store.startup_check), and no such worker may be alive. A role that
may not write `revisions` cannot arrange this: then somebody runs `ingest encryption begin`.

A key is recorded in `body_keys` before it is used, so that each process can tell which it lacks.
"""

import re
from collections.abc import Mapping
from typing import Any

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import ProgrammingError

from ingest.store.encryption.opening import keys_of
from ingest.store.engine import UnfitDatabase, WriterConnection
from ingest.store.sql import in_schema, statement

REVISION = "0015"
"""The oldest code that reads encrypted bodies."""

# A worker that has not reported itself for a while counts until its row is pruned: it may be
# frozen, and go on.
_STATE = """
    SELECT (SELECT coalesce(bool_and(oldest_code >= :revision), false)
            FROM ingest.revisions WHERE revision >= :revision) AS is_closed,
           (SELECT id FROM ingest.processes WHERE kind = 'worker' AND body_keys IS NULL
            ORDER BY seen_at DESC LIMIT 1) AS older_worker
"""
_REFUSE_OLDER = """
    UPDATE ingest.revisions SET oldest_code = :revision
    WHERE oldest_code < :revision AND revision >= :revision
"""
_USE = "INSERT INTO ingest.body_keys (id) VALUES (:key) ON CONFLICT (id) DO NOTHING"
_USED = statement("SELECT id FROM ingest.body_keys ORDER BY used_since, id")


def begin(connection: Connection) -> None:
    """Make sure that bodies may be encrypted with the newest key of the process.

    Raises:
        UnfitDatabase: a worker is alive that could not read them, or the role may not write what
            keeps such code away.
        SQLAlchemyError: the database is away, or not migrated.
    """
    keys = keys_of(connection)
    row = connection.execute(statement(_STATE), {"revision": REVISION}).one()
    _check_no_older_worker(row.older_worker)
    if not row.is_closed:
        try:
            connection.execute(statement(_REFUSE_OLDER), {"revision": REVISION})
        except ProgrammingError as error:
            if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
                raise _not_begun() from error
            raise
    connection.execute(statement(_USE), {"key": keys.newest})


async def begin_writing(connection: WriterConnection) -> None:
    """Do what `begin` does over the connection of a writer; without keys, do nothing.

    Raises:
        UnfitDatabase: as `begin` does.
        psycopg.Error: the database is away, or not migrated.
    """
    if connection.body_keys.newest is None:
        return
    is_closed, older_worker = await _fetch(connection, _STATE, {"revision": REVISION})
    _check_no_older_worker(older_worker)
    if not is_closed:
        try:
            await _run(connection, _REFUSE_OLDER, {"revision": REVISION})
        except psycopg.errors.InsufficientPrivilege as error:
            raise _not_begun() from error
    await _run(connection, _USE, {"key": connection.body_keys.newest})


def used(connection: Connection) -> list[str]:
    """Return the ids of the keys that bodies may be encrypted with, the oldest first."""
    return list(connection.execute(_USED).scalars())


def missing(connection: Connection) -> list[str]:
    """Return the ids of the keys that bodies may be encrypted with, and this process lacks."""
    known = keys_of(connection).ids
    return [key for key in used(connection) if key not in known]


def _check_no_older_worker(worker: str | None) -> None:
    if worker is not None:
        raise UnfitDatabase(
            f"No body is encrypted yet: worker {worker} is of an older release, which could not"
            " read it. Replace it first; one that was killed counts for ten minutes.",
            reason="older_worker",
        )


def _not_begun() -> UnfitDatabase:
    return UnfitDatabase(
        "No body is encrypted yet: code of older releases has to be refused its start first, and"
        " this role may not write that. Run `ingest encryption begin` with one that may.",
        reason="encryption_not_begun",
    )


async def _run(connection: WriterConnection, sql: str, values: Mapping[str, str | None]) -> Any:
    named = re.sub(r":(\w+)", r"%(\1)s", in_schema(sql, connection.schema))
    return await connection.execute(named.encode(), values, prepare=False)


async def _fetch(connection: WriterConnection, sql: str, values: Mapping[str, str]) -> Any:
    return await (await _run(connection, sql, values)).fetchone()
