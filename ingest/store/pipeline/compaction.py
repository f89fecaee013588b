"""Merging the counts of past minutes into fewer rows: into quarters of an hour, then into hours.

An hour at a time in a transaction of its own, so that a relay that was away for weeks catches up
although no statement may take long. An hour that was merged is not looked at again for a while.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine, TextClause

from ingest.store.pipeline.activity_sums import hour_of, quarter_of
from ingest.store.pipeline.metrics import ADD, POSSIBLE_LOSS, SLOTS
from ingest.store.sql import statement

_HOUR = timedelta(hours=1)
_MERGED_FOR_S = 2.0
"""A pass takes so long at most, beyond its last hour; the next one goes on."""
_FIRST_SLOT = f"CAST(slot - slot % {SLOTS} AS smallint)"
"""The slot that the rows of one part are merged into."""
_IS_FURTHER = f"slot % {SLOTS} > 0"
_PAST = (
    "minute >= CAST(:since AS timestamptz) AND minute < CAST(:before AS timestamptz)"
    f" AND what <> '{POSSIBLE_LOSS}'"
)
"""Possible losses are few, and keep their minute: a recovery is before or after it."""


def _merge(minute: str, rows: str) -> TextClause:
    """Return a statement that merges `rows` into one a `minute`; those are not among `rows`."""
    return statement(
        f"""
        WITH removed AS (
            DELETE FROM ingest.activity WHERE {rows} RETURNING *
        ), added AS (
            INSERT INTO ingest.activity (minute, what, label, bucket, slot, count)
            SELECT {minute}, what, label, bucket, {_FIRST_SLOT}, sum(count)
            FROM removed GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
            {ADD}
            RETURNING 1
        )
        SELECT (SELECT count(*) FROM removed) AS removed, (SELECT count(*) FROM added) AS added
        """
    )


def _merge_into(whole: str) -> TextClause:
    """Return a statement that merges past minutes into `whole` ones."""
    minute = whole.format("minute")
    return _merge(minute, f"{_PAST} AND (minute <> {minute} OR {_IS_FURTHER})")


_MERGE_SLOTS = _merge(
    "minute",
    f"{_IS_FURTHER} AND minute >= CAST(:since AS timestamptz)"
    " AND minute < CAST(:before AS timestamptz)",
)
_MERGE_QUARTERS = _merge_into("date_bin('15 minutes', {}, TIMESTAMPTZ '2024-01-01 00:00+00')")
# Hours in UTC: the server's time zone may begin them at half past.
_MERGE_HOURS = _merge_into("date_trunc('hour', {}, 'UTC')")
_FIRST = statement(f"SELECT minute FROM ingest.activity WHERE {_PAST} ORDER BY minute LIMIT 1")
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Compaction:
    """Merges what nobody adds to any more, but for deliveries that are admitted late."""

    def __init__(
        self, *, keep_minutes: timedelta, keep_quarters: timedelta, clock: Callable[[], float]
    ) -> None:
        """Minutes older than `keep_minutes` become quarters of an hour, and quarters older than
        `keep_quarters` hours. `clock` is monotonic, in seconds."""
        self._keep_minutes = keep_minutes
        self._keep_quarters = keep_quarters
        self._clock = clock
        self._quarters = _Walk(_MERGE_QUARTERS, again_after=_HOUR)
        self._hours = _Walk(_MERGE_HOURS, again_after=timedelta(days=1))

    def run(self, engine: Engine, *, now: datetime) -> int:
        """Merge what is due, or a part of it; return how many rows that saved.

        Raises:
            SQLAlchemyError: PostgreSQL is away. What was merged before stays so.
        """
        quarters_until = quarter_of(now - self._keep_minutes)
        hours_until = hour_of(now - self._keep_quarters)
        saved = _merge_slots(engine, now)
        saved += self._walk(engine, self._quarters, now, hours_until, quarters_until)
        return saved + self._walk(engine, self._hours, now, _LONG_AGO, hours_until)

    def _walk(
        self, engine: Engine, walk: "_Walk", now: datetime, since: datetime, until: datetime
    ) -> int:
        walk.begin(now)
        ends_at = self._clock() + _MERGED_FOR_S
        saved = 0
        while (merged := walk.step(engine, since=since, until=until)) is not None:
            saved += merged
            if self._clock() >= ends_at:
                break
        return saved


class _Walk:
    """Merges a past time hour by hour, and begins anew after a while: counts come late."""

    def __init__(self, merge: TextClause, *, again_after: timedelta) -> None:
        self._merge = merge
        self._again_after = again_after
        self._began_at = _LONG_AGO
        self._reached = _LONG_AGO
        """All before is merged."""
        self._has_ended = True

    def begin(self, now: datetime) -> None:
        """Begin anew, if the last walk has ended and was long ago."""
        if self._has_ended and now - self._began_at >= self._again_after:
            self._began_at, self._reached = now, _LONG_AGO

    def step(self, engine: Engine, *, since: datetime, until: datetime) -> int | None:
        """Merge the next hour between two times; return how many rows that saved. None: all of it
        is merged."""
        with engine.begin() as connection:
            bounds = {"since": max(since, self._reached), "before": until}
            first: datetime | None = connection.execute(_FIRST, bounds).scalar()
            self._has_ended = first is None
            if first is None:
                return None
            bounds["before"] = min(until, hour_of(first) + _HOUR)
            saved = _saved(connection, self._merge, bounds)
        self._reached = bounds["before"]
        return saved


def _merge_slots(engine: Engine, now: datetime) -> int:
    """Merge the rows that connections had of their own in the past minutes of an hour."""
    with engine.begin() as connection:
        bounds = {"since": now - _HOUR, "before": now - timedelta(minutes=2)}
        return _saved(connection, _MERGE_SLOTS, bounds)


def _saved(connection: Connection, merge: TextClause, bounds: Mapping[str, datetime]) -> int:
    row = connection.execute(merge, bounds).one()
    return int(row.removed - row.added)
