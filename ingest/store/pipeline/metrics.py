"""Counts per minute, which outlive every process and cost little to keep.

Triggers (ingest.store.triggers) count events and duplicates. The statements that finish and fail
attempts count those. Receivers add their answers and refusals every few seconds. Durations are kept
as histograms whose buckets double, so percentiles are estimates.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, TextClause

from ingest.store import arrays
from ingest.store.sql import statement

BUCKETS = 24
"""The last holds whatever takes longer than two hours and twenty minutes."""

EVENT, DUPLICATE = "event", "duplicate"
SUCCEEDED, FAILED, LAG = "succeeded", "failed", "lag"
ANSWER, REFUSED = "answer", "refused"
UNREADABLE = "unreadable"

_FIELDS_TOLD = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that happened `count` times in the current minute."""

    what: str
    label: str = ""
    """Which processor, source or reason."""
    bucket: int = 0
    """How long it took (see `bucket`)."""
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How often, and how long."""

    counts: tuple[int, ...] = (0,) * (BUCKETS + 1)

    @property
    def total(self) -> int:
        """How often."""
        return sum(self.counts)

    def percentile(self, share: float) -> float | None:
        """Seconds that `share` (0 to 1) of all stayed below, an estimate; None: there are none."""
        wanted, passed = share * self.total, 0
        for number, count in enumerate(self.counts):
            if count and passed + count >= wanted:
                low, high = _bounds(number)
                return low + (high - low) * (wanted - passed) / count
            passed += count
        return None


def bucket(seconds: float) -> int:
    """The bucket of a duration: 0 below a millisecond, k from 2^(k-1) to below 2^k of them."""
    if seconds < 0.001:
        return 0
    return min(math.frexp(seconds * 1000)[1], BUCKETS)


def record(connection: Connection, notes: Sequence[Note]) -> None:
    """Add to the counts of the current minute."""
    if notes:
        connection.execute(_NOTE, parameters(notes))


def parameters(notes: Iterable[Note]) -> dict[str, str]:
    """What a statement that contains `NOTE` is to be given."""
    found = sorted(notes, key=lambda each: (each.what, each.label, each.bucket))
    return {
        "whats": arrays.literal(each.what for each in found),
        "labels": arrays.literal(each.label for each in found),
        "buckets": arrays.literal(each.bucket for each in found),
        "counts": arrays.literal(each.count for each in found),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What happened in one span of time: by what it was, over all labels."""

    begins: datetime
    histograms: Mapping[str, Histogram]

    def count(self, what: str) -> int:
        """How often it happened."""
        found = self.histograms.get(what)
        return found.total if found else 0


def over_time(
    connection: Connection, *, since: datetime, until: datetime, span: timedelta
) -> list[Point]:
    """Every span from `since` to `until`, empty ones too; `since` is where the first begins."""
    rows = connection.execute(_OVER_TIME, {"since": since, "until": until, "span": span})
    found: dict[datetime, dict[str, list[int]]] = {}
    for row in rows:
        counts = found.setdefault(row.begins, {}).setdefault(row.what, [0] * (BUCKETS + 1))
        counts[row.bucket] += int(row.times)
    spans = math.ceil((until - since) / span)
    return [_point(since + number * span, found) for number in range(spans)]


def by_label(connection: Connection, what: str, *, since: datetime) -> dict[str, Histogram]:
    """What happened since then, by label."""
    found: dict[str, list[int]] = {}
    for row in connection.execute(_BY_LABEL, {"what": what, "since": since}):
        found.setdefault(row.label, [0] * (BUCKETS + 1))[row.bucket] += int(row.times)
    return {label: Histogram(counts=tuple(counts)) for label, counts in found.items()}


def unreadable(connection: Connection, *, since: datetime) -> dict[str, int]:
    """Return how many values the read model could not read since then, by processor and field
    (`orders.total`), the most first."""
    counts = {
        label: found.total for label, found in by_label(connection, UNREADABLE, since=since).items()
    }
    return dict(sorted(counts.items(), key=lambda count: (-count[1], count[0])))


def describe_unreadable(counts: Mapping[str, int], period: str) -> str:
    """Return `unreadable` as a sentence; `period` says since when: `in the last hour`."""
    total = sum(counts.values())
    fields = [f"{label} {count:,}" for label, count in counts.items()]
    more = [f"{len(fields) - _FIELDS_TOLD} fields more"] if len(fields) > _FIELDS_TOLD else []
    noun = "value" if total == 1 else "values"
    return f"{total:,} {noun} could not be read {period}: " + ", ".join(
        fields[:_FIELDS_TOLD] + more
    )


def compact(
    connection: Connection, *, now: datetime, keep_minutes: timedelta, keep_quarters: timedelta
) -> int:
    """Merge what nobody adds to any more: the slots of past minutes, minutes older than
    `keep_minutes` into quarters of an hour, and quarters older than `keep_quarters` into hours.
    Returns how many rows that spared."""
    minutes, quarters = now - keep_minutes, now - keep_quarters
    spared = 0
    for merge, parameters in (
        (_MERGE_SLOTS, {"before": now - timedelta(minutes=2), "since": now - timedelta(hours=1)}),
        (_MERGE_QUARTERS, {"before": minutes, "since": quarters}),
        (_MERGE_HOURS, {"before": quarters}),
    ):
        row = connection.execute(merge, parameters).one()
        spared += row.removed - row.added
    return spared


def _point(begins: datetime, found: Mapping[datetime, Mapping[str, list[int]]]) -> Point:
    histograms = {
        what: Histogram(counts=tuple(counts)) for what, counts in found.get(begins, {}).items()
    }
    return Point(begins=begins, histograms=histograms)


def _bounds(number: int) -> tuple[float, float]:
    """From how many to how many seconds a bucket holds."""
    return (0.0 if number == 0 else 2 ** (number - 1) / 1000), 2**number / 1000


# Several slots, so that workers seldom wait for each other; rows in one order, so that they never
# wait in a circle.
_SLOT = "CAST(pg_backend_pid() % 16 AS smallint)"
_ADD = """ON CONFLICT (minute, what, label, bucket, slot)
    DO UPDATE SET count = activity.count + excluded.count"""

NOTE = f"""
    INSERT INTO ingest.activity (minute, what, label, bucket, slot, count)
    SELECT date_trunc('minute', now()), what, label, bucket, {_SLOT}, count
    FROM unnest(CAST(:whats AS text[]), CAST(:labels AS text[]), CAST(:buckets AS smallint[]),
                CAST(:counts AS bigint[])) AS note (what, label, bucket, count)
    ORDER BY what, label, bucket
    {_ADD}
"""
"""A statement that adds `parameters`; a part of others."""
_NOTE = statement(NOTE)

_OVER_TIME = statement(
    """
    SELECT date_bin(:span, minute, :since) AS begins, what, bucket, sum(count) AS times
    FROM ingest.activity
    WHERE minute >= :since AND minute < :until
    GROUP BY 1, 2, 3
    """
)

_BY_LABEL = statement(
    """
    SELECT label, bucket, sum(count) AS times FROM ingest.activity
    WHERE minute >= :since AND what = :what
    GROUP BY label, bucket
    """
)


def _merge(minute: str, rows: str) -> TextClause:
    """Merge `rows` into one a `minute`; the rows that are merged into are none of them."""
    return statement(
        f"""
        WITH removed AS (
            DELETE FROM ingest.activity WHERE {rows} RETURNING *
        ), added AS (
            INSERT INTO ingest.activity (minute, what, label, bucket, slot, count)
            SELECT {minute}, what, label, bucket, 0, sum(count)
            FROM removed GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
            {_ADD}
            RETURNING 1
        )
        SELECT (SELECT count(*) FROM removed) AS removed, (SELECT count(*) FROM added) AS added
        """
    )


def _merge_older(whole: str, *, since: str = "true") -> TextClause:
    """Merge minutes into `whole` ones, those that are over at `:before`."""
    minute, before = whole.format("minute"), whole.format(_BEFORE)
    return _merge(minute, f"minute < {before} AND {since} AND (minute <> {minute} OR slot > 0)")


_BEFORE, _SINCE = "CAST(:before AS timestamptz)", "CAST(:since AS timestamptz)"
# Not the server's hours, which may begin at half past.
_HOUR = "date_trunc('hour', {}, 'UTC')"
_QUARTER = "date_bin('15 minutes', {}, TIMESTAMPTZ '2024-01-01 00:00+00')"
_MERGE_SLOTS = _merge("minute", f"slot > 0 AND minute < {_BEFORE} AND minute >= {_SINCE}")
_MERGE_QUARTERS = _merge_older(_QUARTER, since=f"minute >= {_HOUR.format(_SINCE)}")
_MERGE_HOURS = _merge_older(_HOUR)
