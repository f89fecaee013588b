"""The counts of minutes, summed up by quarter of an hour and by hour for pages that look far back.

Durations take two dozen rows of `activity` for each processor and minute, so that a week of ten
processors is a hundred thousand rows. A sum is one row, with its durations in two arrays. Only the
relay makes sums, once a quarter has ended, and it sums the last hours anew each time: a transaction
adds its counts to the minute in which it began. What has no sums yet is read from `activity`, which
has everything.

Deliveries are counted in the minute of their receipt, often long after it, and so are not summed.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from ingest.store.sql import statement

_QUARTER, _HOUR = timedelta(minutes=15), timedelta(hours=1)
_LENGTHS = (_HOUR, _QUARTER)
_ENDED_FOR = timedelta(minutes=5)
"""A quarter that ended so long ago is summed."""
_SUMMED_AGAIN = timedelta(hours=3)
"""Quarters and hours of this time are summed anew. A transaction that took longer is missing in
them."""
_AT_ONCE = timedelta(days=7)
"""Of a time without sums, so much is summed in a pass."""
_EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
"""Quarters and hours are counted from here, and nothing is older."""
PARTS = 5
"""A duration's cell is `PARTS` times its bucket and its part of that, 0 to 4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of a time, and what it is read from."""

    length: timedelta | None
    """That of the sums; None: read from `activity`."""
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Summed:
    """The time that sums of a length cover without a gap."""

    since: datetime
    until: datetime


_COVERED = statement(
    """
    SELECT span_s,
           (SELECT begins FROM ingest.activity_sums sums WHERE sums.span_s = spans.span_s
            ORDER BY begins LIMIT 1) AS first,
           (SELECT begins FROM ingest.activity_sums sums WHERE sums.span_s = spans.span_s
            ORDER BY begins DESC LIMIT 1) AS last
    FROM unnest(CAST(:spans AS integer[])) AS spans (span_s)
    """
)


def _covered(connection: Connection) -> dict[timedelta, _Summed]:
    """Return what is covered, by the length of the sums."""
    rows = connection.execute(_COVERED, {"spans": list(map(_seconds, _LENGTHS))})
    return {
        timedelta(seconds=row.span_s): _Summed(
            since=row.first, until=row.last + timedelta(seconds=row.span_s)
        )
        for row in rows
        if row.first is not None
    }


def stretches(
    connection: Connection, since: datetime, until: datetime, *, span: timedelta | None = None
) -> list[Stretch]:
    """Return what a time is read from: sums, where there are any, and minutes. With a `span`, no
    sum belongs to two of those that begin at `since`."""
    read, rest = [], [(since, until)]
    all_covered = _covered(connection)
    for length in _LENGTHS:
        covered = all_covered.get(length)
        if covered is None:
            continue
        if span is not None and (span % length or (since - _EPOCH) % length):
            continue
        unread = []
        for low, high in rest:
            begins = max(_round_up(low, length), covered.since)
            ends = min(_round_down(high, length), covered.until)
            if begins >= ends:
                unread.append((low, high))
                continue
            read.append(Stretch(length=length, since=begins, until=ends))
            unread += [part for part in ((low, begins), (ends, high)) if part[0] < part[1]]
        rest = unread
    return read + [Stretch(length=None, since=low, until=high) for low, high in rest]


def rows(
    stretches: Sequence[Stretch], where: str, *, with_durations: bool
) -> tuple[str, dict[str, Any]]:
    """Return a query of what was counted in these stretches, and its parameters. Its rows have
    `minute`, `what`, `label` and `count`, with durations also `bucket` and `part`.

    `where` is a condition on `what` and `label`.
    """
    queries: list[str] = []
    parameters: dict[str, Any] = {}
    for number, stretch in enumerate(stretches):
        parameters[f"since_{number}"] = stretch.since
        parameters[f"until_{number}"] = stretch.until
        if stretch.length is not None:
            parameters[f"span_{number}"] = _seconds(stretch.length)
        template = _MINUTES if stretch.length is None else _SUMS
        durations = _DURATIONS_OF_MINUTES if stretch.length is None else _DURATIONS_OF_SUMS
        columns, joined = durations if with_durations else _TOTALS[stretch.length is None]
        queries.append(template.format(n=number, columns=columns, joined=joined, where=where))
    return " UNION ALL ".join(queries), parameters


_MINUTES = """
    SELECT minute, what, label, {columns} FROM ingest.activity {joined}
    WHERE minute >= :since_{n} AND minute < :until_{n} AND {where}
"""
_SUMS = """
    SELECT begins AS minute, what, label, {columns} FROM ingest.activity_sums {joined}
    WHERE span_s = :span_{n} AND begins >= :since_{n} AND begins < :until_{n} AND {where}
"""
_SLOTS = 16
"""Of `activity.slot`; above them is the part of the bucket (ingest.store.pipeline.metrics)."""
_DURATIONS_OF_MINUTES = f"bucket, slot / {_SLOTS} AS part, count", ""
_DURATIONS_OF_SUMS = (
    f"cell / {PARTS} AS bucket, cell % {PARTS} AS part, counted.count",
    "CROSS JOIN LATERAL unnest(cells, counts) AS counted (cell, count)",
)
_TOTALS = {True: ("count", ""), False: ("total AS count", "")}

_NEXT = statement(
    """
    SELECT minute FROM ingest.activity
    WHERE minute >= :since AND minute < :until AND what = ANY(CAST(:kinds AS text[]))
    ORDER BY minute LIMIT 1
    """
)
_SUM = statement(
    f"""
    WITH counted AS (
        SELECT date_bin(:length, minute, :epoch) AS begins, what, label,
               CAST({PARTS} * bucket + slot / {_SLOTS} AS smallint) AS cell,
               CAST(sum(count) AS bigint) AS count
        FROM ingest.activity
        WHERE minute >= :since AND minute < :until AND what = ANY(CAST(:kinds AS text[]))
        GROUP BY 1, 2, 3, 4
    )
    INSERT INTO ingest.activity_sums AS sums (span_s, begins, what, label, total, cells, counts)
    SELECT :span_s, begins, what, label, sum(count), array_agg(cell ORDER BY cell),
           array_agg(count ORDER BY cell)
    FROM counted GROUP BY begins, what, label ORDER BY begins, what, label
    ON CONFLICT (span_s, begins, what, label) DO UPDATE
    SET total = excluded.total, cells = excluded.cells, counts = excluded.counts
    WHERE (sums.cells, sums.counts) IS DISTINCT FROM (excluded.cells, excluded.counts)
    """
)
_REMOVE = statement("DELETE FROM ingest.activity_sums WHERE span_s = :span_s AND begins < :before")


def make(
    connection: Connection, kinds: Collection[str], *, now: datetime, keep_quarters: timedelta
) -> None:
    """Sum up what these kinds have in quarters and hours that have ended. Sums of quarters are
    kept for as long as `activity` tells quarters apart."""
    oldest = {_HOUR: _EPOCH, _QUARTER: _round_down(now - keep_quarters, _HOUR)}
    connection.execute(_REMOVE, {"span_s": _seconds(_QUARTER), "before": oldest[_QUARTER]})
    covered = _covered(connection)
    for length in _LENGTHS:
        until = _round_down(now - _ENDED_FOR, length)
        _make(connection, kinds, length, covered.get(length), since=oldest[length], until=until)


def _make(
    connection: Connection,
    kinds: Collection[str],
    length: timedelta,
    covered: _Summed | None,
    *,
    since: datetime,
    until: datetime,
) -> None:
    """Add the sums that are missing from `since` on, and make the last ones anew."""
    done = since if covered is None else covered.until
    bounds = {"kinds": list(kinds), "since": done, "until": until}
    missing: datetime | None = connection.execute(_NEXT, bounds).scalar()
    if missing is None:
        return
    begins = _round_down(missing, length)
    ends = min(until, begins + _AT_ONCE)
    if covered is not None:
        begins = max(since, min(begins, _round_down(done - _SUMMED_AGAIN, length)))
    bounds |= {"since": begins, "until": ends, "length": length, "epoch": _EPOCH}
    connection.execute(_SUM, bounds | {"span_s": _seconds(length)})


def hour_of(moment: datetime) -> datetime:
    """Return when the hour of a moment begins, in UTC."""
    return _round_down(moment, _HOUR)


def quarter_of(moment: datetime) -> datetime:
    """Return when the quarter of an hour of a moment begins, in UTC."""
    return _round_down(moment, _QUARTER)


def _seconds(length: timedelta) -> int:
    return int(length.total_seconds())


def _round_down(moment: datetime, length: timedelta) -> datetime:
    return moment - (moment - _EPOCH) % length


def _round_up(moment: datetime, length: timedelta) -> datetime:
    return moment + (_EPOCH - moment) % length
