"""The days of deliveries: a partition each, made ahead, dropped whole.

Ids carry their time, so a day is a range of ids. The default partition keeps the receiver open when
nobody has made the day's partition; what fell into it moves out when the partition is made.

Making and dropping a partition locks out everybody who inserts. Behind a long reader (a dump, an
open transaction) that lock is not to be had, and whoever waits for it makes the receivers wait too:
so it is given up almost at once, and tried again some other time.
"""

from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Connection

from ingest.ids import first_id
from ingest.store.sql import statement

_PREFIX = "deliveries_"
_LOCK_KEY = 0x64617973  # "days"
_ONE_AT_A_TIME = statement("SELECT pg_advisory_xact_lock(:key)").bindparams(key=_LOCK_KEY)
_PATIENCE = statement("SET LOCAL lock_timeout = '100ms'")
"""Well below the receivers' own."""


def ensure(connection: Connection, *, today: date, days_ahead: int) -> list[date]:
    """Make the partitions from `today` on that are missing; returns the days made.

    Two at once wait for each other, as long as their connections wait for locks.

    Raises:
        OperationalError: somebody reads deliveries just now; another time.
    """
    connection.execute(_ONE_AT_A_TIME)
    connection.execute(_PATIENCE)
    existing = set(days(connection))
    wanted = (today + timedelta(days=offset) for offset in range(days_ahead + 1))
    made = [day for day in wanted if day not in existing]
    for day in made:
        _create(connection, day)
    return made


_PARTITIONS = statement(
    "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
    " WHERE i.inhparent = CAST('ingest.deliveries' AS regclass)"
)


def days(connection: Connection) -> list[date]:
    """The days that have a partition, oldest first."""
    names = connection.execute(_PARTITIONS).scalars()
    suffixes = (name.removeprefix(_PREFIX) for name in names)
    return sorted(
        datetime.strptime(suffix, "%Y_%m_%d").replace(tzinfo=UTC).date()
        for suffix in suffixes
        if suffix != "default"
    )


_UNFINISHED = statement(
    """
    SELECT (SELECT count(*) FROM ingest.unadmitted
            WHERE delivery >= CAST(:first AS uuid) AND delivery < CAST(:last AS uuid))
         + (SELECT count(*) FROM ingest.jobs
            WHERE (due_at IS NOT NULL OR lease_until IS NOT NULL)
              AND event >= CAST(:first AS uuid) AND event < CAST(:last AS uuid))
    """
)


def drop(connection: Connection, day: date) -> int | None:
    """Drop a day's bodies; events, duplicates and jobs stay, so dedupe outlives them.

    When deliveries of the day are still to be worked on, nothing is dropped, and their number is
    returned.

    Raises:
        OperationalError: somebody reads deliveries just now; another time.
    """
    first, last = _bounds(day)
    bounds = {"first": first, "last": last}
    unfinished: int = connection.execute(_UNFINISHED, bounds).scalar_one()
    if unfinished:
        return unfinished
    connection.execute(_PATIENCE)
    # A replay reads the body in the transaction that puts its job back, so from here on none does.
    connection.execute(statement("LOCK TABLE ingest.deliveries IN ACCESS EXCLUSIVE MODE"))
    unfinished = connection.execute(_UNFINISHED, bounds).scalar_one()
    if unfinished:
        return unfinished
    connection.execute(statement(f"DROP TABLE IF EXISTS {_name(day)}"))
    return None


_IN_DAY = "id >= CAST(:first AS uuid) AND id < CAST(:last AS uuid)"


_STRAYS = statement(f"SELECT EXISTS (SELECT FROM ingest.deliveries_default WHERE {_IN_DAY})")


_SET_ASIDE = statement(
    "CREATE TEMPORARY TABLE pg_temp.strays AS"
    f" SELECT * FROM ingest.deliveries_default WHERE {_IN_DAY}"
)


_REMOVE_STRAYS = statement(f"DELETE FROM ingest.deliveries_default WHERE {_IN_DAY}")


def _create(connection: Connection, day: date) -> None:
    first, last = _bounds(day)
    bounds = {"first": first, "last": last}
    aside = connection.execute(_STRAYS, bounds).scalar_one()
    if aside:
        connection.execute(_SET_ASIDE, bounds)
        connection.execute(_REMOVE_STRAYS, bounds)
    connection.execute(
        statement(
            f"CREATE TABLE IF NOT EXISTS {_name(day)} PARTITION OF ingest.deliveries "
            f"FOR VALUES FROM ('{first}') TO ('{last}')"
        )
    )
    if aside:
        connection.execute(statement("INSERT INTO ingest.deliveries SELECT * FROM pg_temp.strays"))
        connection.execute(statement("DROP TABLE pg_temp.strays"))


def _name(day: date) -> str:
    return f"ingest.{_PREFIX}{day:%Y_%m_%d}"


def _bounds(day: date) -> tuple[str, str]:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return str(first_id(start)), str(first_id(start + timedelta(days=1)))
