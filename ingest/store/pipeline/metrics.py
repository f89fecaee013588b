"""Counts per minute, which outlive every process and cost little to keep.

Triggers (ingest.store.triggers) count events and duplicates. The statements that finish and fail
attempts count those. Receivers add their answers and refusals every few seconds. Durations are kept
as histograms (ingest.store.pipeline.histograms), so percentiles are estimates.

A row's `slot` holds two numbers: which of 16 rows is added to, by whose process, and 16 times the
part of the bucket that the durations are in. The release before adds all slots up, and so it reads
what this one writes; it writes no parts, and merges them away.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from ingest.store import arrays
from ingest.store.pipeline import activity_sums, histograms
from ingest.store.pipeline.activity_sums import Stretch
from ingest.store.pipeline.histograms import Counts, Histogram, Place
from ingest.store.sql import statement

EVENT, DUPLICATE = "event", "duplicate"
SUCCEEDED, FAILED, LAG = "succeeded", "failed", "lag"
ANSWER, REFUSED = "answer", "refused"
POSSIBLE_LOSS = "possible_loss"
"""Refused, and the sender does not send it again (ingest.store.reports.possible_losses)."""
KEY = "key"
UNREADABLE = "unreadable"
SUMMED = (SUCCEEDED, FAILED, LAG, ANSWER, REFUSED, KEY, UNREADABLE)
"""What is counted when it happens, and has sums (ingest.store.pipeline.activity_sums)."""

MINUTES_KEPT = timedelta(hours=2)
"""Counts are kept by the minute for so long, for the chart of an hour."""
QUARTERS_KEPT = timedelta(hours=26)
"""Counts are kept by the quarter of an hour for so long, for the chart of a day."""

_FIELDS_LISTED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that happened `count` times in the current minute."""

    what: str
    label: str = ""
    """Which processor, source or reason."""
    cell: int = 0
    """The cell of its duration (ingest.store.pipeline.histograms)."""
    count: int = 1


# With several slots, workers seldom wait for each other. One order of rows keeps them from
# deadlocking. Shared with the statements that merge rows.
SLOTS = 16
_SLOT = f"CAST(pg_backend_pid() % {SLOTS} + {SLOTS} * part AS smallint)"
_PART = f"slot / {SLOTS}"
ADD = """ON CONFLICT (minute, what, label, bucket, slot)
    DO UPDATE SET count = activity.count + excluded.count"""

NOTE = f"""
    INSERT INTO ingest.activity (minute, what, label, bucket, slot, count)
    SELECT date_trunc('minute', now()), what, label, bucket, {_SLOT}, count
    FROM unnest(CAST(:whats AS text[]), CAST(:labels AS text[]), CAST(:buckets AS smallint[]),
                CAST(:parts AS smallint[]), CAST(:counts AS bigint[]))
         AS note (what, label, bucket, part, count)
    ORDER BY what, label, bucket, part
    {ADD}
"""
"""The statement that adds `parameters`; also a part of other statements."""
_NOTE = statement(NOTE)


def record(connection: Connection, notes: Sequence[Note]) -> None:
    """Add to the counts of the current minute."""
    if notes:
        connection.execute(_NOTE, parameters(notes))


def parameters(notes: Iterable[Note]) -> dict[str, str]:
    """Return the parameters of a statement that contains `NOTE`."""
    ordered = sorted(notes, key=lambda note: (note.what, note.label, note.cell))
    places = [histograms.place(note.cell) for note in ordered]
    return {
        "whats": arrays.literal(note.what for note in ordered),
        "labels": arrays.literal(note.label for note in ordered),
        "buckets": arrays.literal(place.bucket for place in places),
        "parts": arrays.literal(place.part for place in places),
        "counts": arrays.literal(note.count for note in ordered),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What happened in one span of time, over all labels."""

    begins: datetime
    counts: Mapping[str, int]
    """How often what was counted happened."""
    histograms: Mapping[str, Histogram]
    """How long what was timed took."""

    def count(self, what: str) -> int:
        """Return how often it happened."""
        histogram = self.histograms.get(what)
        return histogram.total if histogram else self.counts.get(what, 0)


def over_time(
    connection: Connection,
    *,
    since: datetime,
    until: datetime,
    span: timedelta,
    counted: Collection[str] = (),
    timed: Collection[str] = (),
    label: str | None = None,
) -> list[Point]:
    """Return every span from `since` to `until`, empty ones too; the first begins at `since`.

    Args:
        connection: a connection to the database.
        since: a whole minute.
        until: likewise.
        span: the length of a span, in whole minutes.
        counted: what is only counted.
        timed: what has histograms, too, of `SUMMED`.
        label: only what was counted under it; None: all.
    """
    stretches = activity_sums.stretches(connection, since, until, span=span)
    has_label = "(CAST(:label AS text) IS NULL OR label = :label)"
    wanted = f"what = ANY(CAST(:{{}} AS text[])) AND {has_label}"
    durations, parameters = activity_sums.rows(
        stretches, wanted.format("timed"), with_durations=True
    )
    totals, _ = activity_sums.rows(stretches, wanted.format("counted"), with_durations=False)
    query = f"""
        SELECT date_bin(:span, minute, :since) AS begins, what, bucket, part,
               CAST(sum(count) AS bigint) AS times
        FROM (
            SELECT minute, what, bucket, part, count FROM ({durations}) AS durations
            UNION ALL
            SELECT minute, what, NULL, NULL, count FROM ({totals} UNION ALL {_OF_RECEIPT}) AS totals
        ) AS happened
        GROUP BY 1, 2, 3, 4
    """
    parameters |= {
        "since": since,
        "until": until,
        "span": span,
        "label": label,
        "timed": list(timed),
        "counted": [what for what in counted if what in SUMMED],
        "of_receipt": [what for what in counted if what not in SUMMED],
    }
    counts: dict[datetime, dict[str, int]] = {}
    histograms: dict[datetime, dict[str, Counts]] = {}
    for row in connection.execute(statement(query), parameters):
        if row.bucket is None:
            counts.setdefault(row.begins, {})[row.what] = row.times
        else:
            durations_of = histograms.setdefault(row.begins, {}).setdefault(row.what, Counts())
            durations_of.add(Place(row.bucket, row.part), row.times)
    beginnings = [since + number * span for number in range(math.ceil((until - since) / span))]
    return [
        _point(begins, counts.get(begins, {}), histograms.get(begins, {})) for begins in beginnings
    ]


# By the index of these few rows.
_OF_RECEIPT = f"""
    SELECT minute, what, label, count FROM ingest.activity
    WHERE what IN ('{EVENT}', '{DUPLICATE}') AND what = ANY(CAST(:of_receipt AS text[]))
      AND minute >= :since AND minute < :until
      AND (CAST(:label AS text) IS NULL OR label = :label)
"""
_FOREVER = datetime.max.replace(tzinfo=UTC)


def by_label(connection: Connection, what: str, *, since: datetime) -> dict[str, Histogram]:
    """Return the histogram of each label since then, of what is in `SUMMED`."""
    stretches = activity_sums.stretches(connection, since, _FOREVER)
    counted, parameters = activity_sums.rows(stretches, "what = :what", with_durations=True)
    query = f"""
        SELECT label, bucket, part, CAST(sum(count) AS bigint) AS times
        FROM ({counted}) AS counted GROUP BY 1, 2, 3
    """
    labels: dict[str, Counts] = {}
    for row in connection.execute(statement(query), parameters | {"what": what}):
        labels.setdefault(row.label, Counts()).add(Place(row.bucket, row.part), row.times)
    return {label: counts.read() for label, counts in labels.items()}


def labels_over_time(
    connection: Connection,
    whats: Sequence[str],
    *,
    since: datetime,
    until: datetime,
    span: timedelta,
) -> dict[str, dict[datetime, int]]:
    """Return how often something of `whats`, which are in `SUMMED`, happened, by label and by when
    its span begins."""
    stretches = activity_sums.stretches(connection, since, until, span=span)
    wanted = "what = ANY(CAST(:whats AS text[]))"
    counted, parameters = activity_sums.rows(stretches, wanted, with_durations=False)
    query = f"""
        SELECT label, date_bin(:span, minute, :since) AS begins,
               CAST(sum(count) AS bigint) AS times
        FROM ({counted}) AS counted GROUP BY 1, 2
    """
    parameters |= {"since": since, "span": span, "whats": list(whats)}
    counts: dict[str, dict[datetime, int]] = {}
    for row in connection.execute(statement(query), parameters):
        counts.setdefault(row.label, {})[row.begins] = row.times
    return counts


def kept_by(moment: datetime, *, now: datetime) -> timedelta:
    """Return the span that what was counted at a time is kept by (see `compaction`)."""
    for age, span in ((MINUTES_KEPT, timedelta(minutes=1)), (QUARTERS_KEPT, timedelta(minutes=15))):
        if moment >= now - age:
            return span
    return timedelta(hours=1)


def as_kept(connection: Connection, since: datetime, *, now: datetime) -> list[Stretch]:
    """Return what the time since then is read from, as finely as it is kept by (see `kept_by`)."""
    quarters = activity_sums.hour_of(now - QUARTERS_KEPT)
    minutes = activity_sums.hour_of(now - MINUTES_KEPT)
    return [
        *activity_sums.stretches(connection, since, quarters),
        *activity_sums.stretches(connection, quarters, minutes, span=timedelta(minutes=15)),
        Stretch(length=None, since=minutes, until=_FOREVER),
    ]


_COUNTED_SINCE = statement(
    """
    SELECT greatest(CAST(:since AS timestamptz), min(minute)) AS since
    FROM ingest.activity HAVING max(minute) >= :since
    """
)


def counted_since(connection: Connection, *, since: datetime) -> datetime | None:
    """Return from when on the time since then was counted: all of it, or from the first minute that
    was ever counted. None: nothing was counted since then."""
    begins: datetime | None = connection.execute(_COUNTED_SINCE, {"since": since}).scalar()
    return begins


def unreadable(connection: Connection, *, since: datetime) -> dict[str, int]:
    """Count the values that the read model could not read since then, the most first.

    The keys are processor and field: `orders.total`.
    """
    histograms = by_label(connection, UNREADABLE, since=since)
    counts = {label: histogram.total for label, histogram in histograms.items()}
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def describe_unreadable(counts: Mapping[str, int], period: str) -> str:
    """Return `unreadable` as a sentence; `period` is its time: `in the last hour`."""
    total = sum(counts.values())
    fields = [f"{label} {count:,}" for label, count in counts.items()]
    more = [f"{len(fields) - _FIELDS_LISTED} fields more"] if len(fields) > _FIELDS_LISTED else []
    noun = "value" if total == 1 else "values"
    return f"{total:,} {noun} could not be read {period}: " + ", ".join(
        fields[:_FIELDS_LISTED] + more
    )


def _point(begins: datetime, counts: Mapping[str, int], timed: Mapping[str, Counts]) -> Point:
    histograms = {what: durations.read() for what, durations in timed.items()}
    return Point(begins=begins, counts=counts, histograms=histograms)
