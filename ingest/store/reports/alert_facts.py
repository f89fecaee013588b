"""What the rules of the alerts need beside the gauges. Each statement reads a bounded span."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from ingest.store.pipeline.metrics import ANSWER, FAILED, KEY, REFUSED, SUCCEEDED
from ingest.store.sql import statement

DAYS_COMPARED = 7
_DAY, _HOUR = timedelta(days=1), timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastHour:
    """How much a source delivered in an hour of one of the days before."""

    source: str
    days_ago: int
    deliveries: int


_COUNTS = statement(
    """
    SELECT label, CAST(sum(count) AS bigint) AS times FROM ingest.activity
    WHERE minute >= :since AND minute <= :until AND what = :what
    GROUP BY label ORDER BY label
    """
)


def _counts(
    connection: Connection, what: str, *, now: datetime, window: timedelta
) -> dict[str, int]:
    """Return how often something happened in the `window` before `now`, by label.

    The minute in which the window begins counts as a whole.
    """
    since = (now - window).replace(second=0, microsecond=0)
    rows = connection.execute(_COUNTS, {"what": what, "since": since, "until": now})
    return {row.label: row.times for row in rows}


def attempts(
    connection: Connection, *, now: datetime, window: timedelta
) -> dict[str, tuple[int, int]]:
    """Return how many attempts of each processor failed and how many succeeded."""
    failed = _counts(connection, FAILED, now=now, window=window)
    succeeded = _counts(connection, SUCCEEDED, now=now, window=window)
    return {name: (count, succeeded.get(name, 0)) for name, count in failed.items()}


def refusals(
    connection: Connection, *, now: datetime, window: timedelta
) -> tuple[dict[str, int], int]:
    """Return how many requests were refused, by reason, and how many were stored."""
    answers = _counts(connection, ANSWER, now=now, window=window)
    return _counts(connection, REFUSED, now=now, window=window), sum(answers.values())


def key_uses(connection: Connection, *, now: datetime, window: timedelta) -> dict[str, int]:
    """Return how many deliveries each key signed, by `key_use.label`."""
    return _counts(connection, KEY, now=now, window=window)


_PAST_HOURS = statement(
    f"""
    SELECT split_part(label, ' ', 1) AS source, days_ago,
           CAST(sum(count) AS bigint) AS deliveries
    FROM generate_series(1, {DAYS_COMPARED}) AS days_ago
    CROSS JOIN LATERAL (
        SELECT label, count FROM ingest.activity
        WHERE minute >= CAST(:hour AS timestamptz) - days_ago * CAST(:day AS interval)
          AND minute < CAST(:hour AS timestamptz) + CAST(:one AS interval)
                       - days_ago * CAST(:day AS interval)
          AND what = :what
    ) AS counted
    GROUP BY 1, 2 ORDER BY 1, 2
    """
)


def past_hours(connection: Connection, *, at: datetime) -> list[PastHour]:
    """Return what each source delivered in the clock hour of `at` (UTC) on the days before.

    Counts older than a day are kept by the hour.
    """
    hour = at.replace(minute=0, second=0, microsecond=0)
    parameters = {"hour": hour, "what": KEY, "day": _DAY, "one": _HOUR}
    rows = connection.execute(_PAST_HOURS, parameters)
    return [PastHour(**row) for row in rows.mappings()]


_DATABASE_BYTES = statement("SELECT pg_database_size(current_database())")


def database_bytes(connection: Connection) -> int:
    """Return the size of the database. PostgreSQL looks at each of its files for it."""
    size: int = connection.execute(_DATABASE_BYTES).scalar_one()
    return size
