"""The partitions of deliveries: one a day, made ahead and dropped whole.

Ids carry their time, so a day is a range of ids. If the day's partition is missing, deliveries go
to the default partition and the receiver keeps working. A few move out when the partition is made.
A day with many there gets none: moving them would shut the receivers out. So would PostgreSQL,
which reads the whole default partition for each new one, unless it has been shown beforehand that
nothing of those days is in it (`show_absent`).

Making or dropping a partition takes a lock that excludes every insert. Behind a long reader (a
dump, an open transaction) the lock is not available, and waiting for it would make the receivers
wait too. So the attempt gives up almost at once and is repeated later.
"""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import psycopg
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from ingest.ids import first_id, received_at
from ingest.store import arrays
from ingest.store.sql import statement

STRAYS_AT_ONCE = 500
"""Deliveries that one transaction moves or removes: with bodies of 1 MiB each half a gigabyte."""
_PREFIX = "deliveries_"
_NAME = re.compile(_PREFIX + r"[0-9]{4}_[0-9]{2}_[0-9]{2}")
_LOCK_KEY = 0x64617973  # "days"
_ONE_AT_A_TIME = statement("SELECT pg_advisory_xact_lock(:key)").bindparams(key=_LOCK_KEY)
_PATIENCE = statement("SET LOCAL lock_timeout = '100ms'")
"""Well below the receivers' own lock time-out."""


# What is stored from here on waits: it could come between the copy and the deletion of strays.
_SHUT_OUT = statement(
    "LOCK TABLE ONLY ingest.deliveries, ONLY ingest.deliveries_default IN ACCESS EXCLUSIVE MODE"
)


def ensure(connection: Connection, *, today: date, days_ahead: int) -> list[date]:
    """Make the missing partitions from `today` on; return their days. A day with more than
    `STRAYS_AT_ONCE` deliveries in the default partition gets none; nor, where that is large, does
    any that was not shown absent there.

    Concurrent callers wait for each other, as long as their connections wait for locks.

    Raises:
        OperationalError: a reader of deliveries holds a lock; try again later.
    """
    connection.execute(_ONE_AT_A_TIME)
    connection.execute(_PATIENCE)
    existing = set(days(connection))
    coming = (today + timedelta(days=offset) for offset in range(days_ahead + 1))
    made = _make(connection, [day for day in coming if day not in existing])
    _give_to_owner(connection)
    return made


def _make(connection: Connection, missing: Sequence[date]) -> list[date]:
    if not missing:
        return []
    connection.execute(_SHUT_OUT)
    if _is_default_large(connection):
        absent = _shown_absent(connection)
        missing = [day for day in missing if day in absent]
    made = [day for day in missing if _create(connection, day)]
    connection.execute(_FORGET_ABSENT)
    return made


LARGE_BYTES = 64 * 1024 * 1024
"""The size from which a default partition is not read while receivers wait."""
_DEFAULT_SIZE = statement("SELECT pg_relation_size('ingest.deliveries_default')")
_ABSENT = "deliveries_default_absent"
_FORGET_ABSENT = statement(
    f"ALTER TABLE ingest.deliveries_default DROP CONSTRAINT IF EXISTS {_ABSENT}"
)
_SHOW_ABSENT = statement(f"ALTER TABLE ingest.deliveries_default VALIDATE CONSTRAINT {_ABSENT}")
_FIND_ABSENT = statement(
    f"""
    SELECT pg_get_constraintdef(oid) FROM pg_constraint
    WHERE conrelid = CAST('ingest.deliveries_default' AS regclass) AND conname = '{_ABSENT}'
      AND convalidated
    """
)
_LONG_ENOUGH = statement("SET LOCAL statement_timeout = '30min'")
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def show_absent(engine: Engine, *, today: date, days_ahead: int) -> None:
    """Where the default partition is large, show PostgreSQL that nothing of the coming days is in
    it, before `ensure` makes their partitions. Receivers go on meanwhile. Deliveries with the time
    of such a day, which a clock that is ahead would give, are refused until then.

    Raises:
        SQLAlchemyError: a lock is held, or something of those days is there.
    """
    with engine.begin() as connection:
        connection.execute(_ONE_AT_A_TIME)
        connection.execute(_PATIENCE)
        existing = set(days(connection))
        coming = (today + timedelta(days=offset) for offset in range(1, days_ahead + 1))
        missing = [day for day in coming if day not in existing]
        if not missing or not _is_default_large(connection):
            return
        first, last = _bounds(missing[0])[0], _bounds(missing[-1])[1]
        connection.execute(_FORGET_ABSENT)
        connection.execute(
            statement(
                f"ALTER TABLE ingest.deliveries_default ADD CONSTRAINT {_ABSENT}"
                f" CHECK (id < '{first}' OR id >= '{last}') NOT VALID"
            )
        )
    try:
        with engine.begin() as connection:
            connection.execute(_LONG_ENOUGH)
            connection.execute(_SHOW_ABSENT)
    except BaseException:  # Ctrl-C too: what stays would refuse the deliveries of tomorrow
        with engine.begin() as connection:
            connection.execute(_FORGET_ABSENT)
        raise


def _is_default_large(connection: Connection) -> bool:
    return int(connection.execute(_DEFAULT_SIZE).scalar_one()) > LARGE_BYTES


def _shown_absent(connection: Connection) -> set[date]:
    """Return the days of which it was shown that nothing is in the default partition."""
    definition = connection.execute(_FIND_ABSENT).scalar()
    if definition is None:
        return set()
    first, last = (received_at(UUID(spelled)).date() for spelled in _ID.findall(definition))
    return {first + timedelta(days=offset) for offset in range((last - first).days)}


_PARTITIONS = statement(
    "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
    " WHERE i.inhparent = CAST('ingest.deliveries' AS regclass)"
)


def days(connection: Connection) -> list[date]:
    """Return the days that have a partition, oldest first. One that somebody else has attached, by
    another name, is left alone."""
    names = connection.execute(_PARTITIONS).scalars()
    return sorted(
        datetime.strptime(name, f"{_PREFIX}%Y_%m_%d").replace(tzinfo=UTC).date()
        for name in names
        if _NAME.fullmatch(name)
    )


# Two counts of jobs: each reads the index of what is due or leased. With OR every job of the day is
# read, 0.14 µs each and more from the disk, at 1,000 events a second beyond the relay's time-out.
_UNFINISHED = statement(
    """
    SELECT (SELECT count(*) FROM ingest.unadmitted
            WHERE delivery >= CAST(:first AS uuid) AND delivery < CAST(:last AS uuid))
         + (SELECT count(*) FROM ingest.jobs WHERE due_at IS NOT NULL
              AND event >= CAST(:first AS uuid) AND event < CAST(:last AS uuid))
         + (SELECT count(*) FROM ingest.jobs WHERE lease_until IS NOT NULL
              AND event >= CAST(:first AS uuid) AND event < CAST(:last AS uuid))
    """
)


def drop(connection: Connection, day: date) -> int | None:
    """Drop a day's bodies; events, duplicates and jobs stay, so dedupe outlives them.

    Return None, or the number of the day's unfinished deliveries and jobs: then nothing is dropped.

    Raises:
        OperationalError: a reader of deliveries holds a lock; try again later.
    """
    unfinished = _unfinished(connection, day)
    if unfinished:
        return unfinished
    connection.execute(_PATIENCE)
    # A replay reads the body in the transaction that requeues its job, so none can from here on.
    connection.execute(statement("LOCK TABLE ingest.deliveries IN ACCESS EXCLUSIVE MODE"))
    unfinished = _unfinished(connection, day)
    if unfinished:
        return unfinished
    connection.execute(statement(f"DROP TABLE IF EXISTS {_name(day)}"))
    return None


def _unfinished(connection: Connection, day: date) -> int:
    first, last = _bounds(day)
    return int(connection.execute(_UNFINISHED, {"first": first, "last": last}).scalar_one())


_FIRST_STRAY = statement(
    """
    SELECT id FROM ingest.deliveries_default
    WHERE id >= CAST(:after AS uuid) AND id < CAST(:before AS uuid) ORDER BY id LIMIT 1
    """
)


def stray_days(connection: Connection, *, before: date) -> list[date]:
    """Return the days before one whose deliveries are in the default partition, oldest first. No
    relay made the partitions of those days in time."""
    stray: list[date] = []
    bounds = {"after": str(UUID(int=0)), "before": _bounds(before)[0]}
    while (first := connection.execute(_FIRST_STRAY, bounds).scalar()) is not None:
        stray.append(received_at(first).date())
        bounds["after"] = _bounds(stray[-1])[1]
    return stray


class DroppedStrays(NamedTuple):
    """What became of deliveries of a day in the default partition."""

    removed: int
    unfinished: int
    """Unfinished deliveries and jobs among the next. With any, none of those is removed."""


_NEXT_STRAYS = statement(
    """
    SELECT id FROM ingest.deliveries_default
    WHERE id >= CAST(:first AS uuid) AND id < CAST(:last AS uuid)
    ORDER BY id LIMIT :limit FOR UPDATE
    """
)
_REMOVE = statement("DELETE FROM ingest.deliveries_default WHERE id = ANY(CAST(:ids AS uuid[]))")


def drop_strays(connection: Connection, day: date) -> DroppedStrays:
    """Do what `drop` does with the next `STRAYS_AT_ONCE` bodies of a day in the default partition.

    No receiver waits for it. The deliveries are locked first, so none is opened again meanwhile;
    a replay of one at this very moment may find its body gone.
    """
    first, last = _bounds(day)
    parameters = {"first": first, "last": last, "limit": STRAYS_AT_ONCE}
    strays = list(connection.execute(_NEXT_STRAYS, parameters).scalars())
    if not strays:
        return DroppedStrays(0, 0)
    beyond = UUID(int=strays[-1].int + 1)
    bounds = {"first": str(strays[0]), "last": str(beyond)}
    unfinished = int(connection.execute(_UNFINISHED, bounds).scalar_one())
    if unfinished:
        return DroppedStrays(0, unfinished)
    connection.execute(_REMOVE, {"ids": arrays.literal(strays)})
    return DroppedStrays(len(strays), 0)


_IN_DAY = "id >= CAST(:first AS uuid) AND id < CAST(:last AS uuid)"
_COUNT_STRAYS = statement(
    f"""
    SELECT count(*) FROM (
        SELECT FROM ingest.deliveries_default WHERE {_IN_DAY} LIMIT {STRAYS_AT_ONCE + 1}
    ) AS strays
    """
)
_COPY_STRAYS = statement(
    "CREATE TEMPORARY TABLE pg_temp.strays AS"
    f" SELECT * FROM ingest.deliveries_default WHERE {_IN_DAY}"
)
_REMOVE_STRAYS = statement(f"DELETE FROM ingest.deliveries_default WHERE {_IN_DAY}")


def _create(connection: Connection, day: date) -> bool:
    """Make a day's partition, and move what is of it there; return False if that is too much."""
    first, last = _bounds(day)
    bounds = {"first": first, "last": last}
    strays = connection.execute(_COUNT_STRAYS, bounds).scalar_one()
    if strays > STRAYS_AT_ONCE:
        return False
    if strays:
        connection.execute(_COPY_STRAYS, bounds)
        connection.execute(_REMOVE_STRAYS, bounds)
    connection.execute(
        statement(
            f"CREATE TABLE IF NOT EXISTS {_name(day)} PARTITION OF ingest.deliveries "
            f"FOR VALUES FROM ('{first}') TO ('{last}')"
        )
    )
    if strays:
        connection.execute(statement("INSERT INTO ingest.deliveries SELECT * FROM pg_temp.strays"))
        connection.execute(statement("DROP TABLE pg_temp.strays"))
    return True


_OURS = statement(
    """
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name,
           quote_ident(pg_get_userbyid(p.relowner)) AS owner
    FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class p ON p.oid = i.inhparent
    WHERE i.inhparent = CAST('ingest.deliveries' AS regclass)
      AND c.relowner <> p.relowner AND pg_get_userbyid(c.relowner) = current_user
    """
)
_NOT_NOW = (psycopg.errors.InsufficientPrivilege, psycopg.errors.LockNotAvailable)


def _give_to_owner(connection: Connection) -> None:
    """Give partitions that this role owns to the owner of `deliveries`: a migration that changes
    that table must own all of them. It needs the right to become that role, which PostgreSQL 16
    can withhold from a member."""
    for partition in connection.execute(_OURS).all():
        try:
            alter = f"ALTER TABLE {partition.name} OWNER TO {partition.owner}"
            with connection.begin_nested():
                connection.execute(text(alter.replace(":", r"\:")))
        except DBAPIError as error:
            if not isinstance(error.orig, _NOT_NOW):
                raise


def _name(day: date) -> str:
    return f"ingest.{_PREFIX}{day:%Y_%m_%d}"


def _bounds(day: date) -> tuple[str, str]:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return str(first_id(start)), str(first_id(start + timedelta(days=1)))
