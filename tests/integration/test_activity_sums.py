"""Sums of what was counted say what the counts themselves say, and pages of a day and a week read
them."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from ingest.store.pipeline import activity_sums, metrics
from ingest.store.pipeline.metrics import (
    ANSWER,
    DUPLICATE,
    EVENT,
    FAILED,
    KEY,
    LAG,
    REFUSED,
    SUCCEEDED,
    SUMMED,
    UNREADABLE,
)
from ingest.store.reports import key_use
from ingest.store.retention.records import REMOVERS
from tests.integration.test_activity import DAY, HOUR, MINUTE, TODAY, compact, counted, insert, told
from tests.support.rows import execute, one

QUARTER = timedelta(minutes=15)
KINDS = (EVENT, DUPLICATE, SUCCEEDED, FAILED, LAG, ANSWER, REFUSED, KEY, UNREADABLE)
TIMED = (SUCCEEDED, LAG, ANSWER)
NOW = TODAY + 37 * MINUTE
"""A quarter of an hour is under way, and an hour."""


def make(engine: Engine, now: datetime = NOW, passes: int = 3) -> None:
    compact(engine, now=now)
    for _ in range(passes):
        with engine.begin() as connection:
            activity_sums.make(connection, SUMMED, now=now, keep_quarters=metrics.QUARTERS_KEPT)


def happened(
    source: random.Random, count: int, *, ago: timedelta, until: timedelta = timedelta()
) -> list[tuple[datetime, str, str, int, int, int]]:
    """Rows as workers and receivers write them, some of a release that told no parts."""
    first, last = int(until / MINUTE), int(ago / MINUTE)
    found = set()
    for _ in range(count):
        what = source.choice(KINDS)
        bucket, part = source.choice([(0, 0), (3, 0), (3, 1), (3, 4), (9, 2), (24, 4)])
        found.add(
            (
                NOW.replace(second=0) - source.randrange(first, last) * MINUTE,
                what,
                source.choice(["", "orders", "awalchat 0123abcd"]),
                *((bucket, part) if what in TIMED else (0, 0)),
                source.randrange(16),
            )
        )
    return [
        (minute, what, label, bucket, 16 * part + slot, source.randrange(1, 100))
        for minute, what, label, bucket, part, slot in sorted(found)
    ]


def read(engine: Engine, now: datetime = NOW) -> list[Any]:
    """All that pages read, of several times."""
    return list(_read(engine, now))


def _read(engine: Engine, now: datetime) -> Iterator[Any]:
    hour = now.replace(minute=0)
    quarter = hour + (now - hour) // QUARTER * QUARTER
    windows = (
        (quarter - 6 * DAY, quarter, 2 * HOUR),
        (hour - 7 * DAY, hour + HOUR, 2 * HOUR),
        (quarter - DAY, quarter + QUARTER, QUARTER),
        (hour - 26 * HOUR, hour - 3 * HOUR, HOUR),
        (hour - 3 * DAY, hour - 2 * DAY, HOUR),
        (now - HOUR, now + MINUTE, MINUTE),
        (now - 7 * MINUTE - 20 * HOUR, now, 5 * MINUTE),
    )
    with engine.connect() as connection:
        for since, until, span in windows:
            for label in (None, "orders"):
                points = metrics.over_time(
                    connection,
                    since=since,
                    until=until,
                    span=span,
                    counted=tuple(set(KINDS) - set(TIMED)),
                    timed=TIMED,
                    label=label,
                )
                yield since, span, label, told(points)
            yield metrics.labels_over_time(
                connection, (SUCCEEDED, FAILED), since=since, until=until, span=span
            )
            for what in SUMMED:
                yield (
                    what,
                    {
                        label: counted({label: histogram})
                        for label, histogram in metrics.by_label(
                            connection, what, since=since
                        ).items()
                    },
                )
        yield key_use.read(connection, {"awalchat": ["0123abcd"]}, now=now)


def test_sums_say_what_the_counts_say(engine: Engine) -> None:
    source = random.Random(5)
    insert(engine, happened(source, 6_000, ago=9 * DAY))
    compact(engine, now=NOW)
    before = read(engine)
    assert any(point for point in before)
    make(engine)
    spans = "SELECT count(*) FROM activity_sums WHERE span_s = :span_s"
    assert one(engine, spans, span_s=3600) > 1_000
    assert one(engine, spans, span_s=900) > 100
    assert read(engine) == before


def test_what_comes_after_a_sum_was_made_is_told(engine: Engine) -> None:
    """Some of it in quarters that have their sum: of transactions that took minutes."""
    source = random.Random(6)
    insert(engine, happened(source, 4_000, ago=3 * DAY, until=3 * HOUR))
    make(engine, NOW - 3 * HOUR)
    insert(engine, happened(source, 2_000, ago=3 * HOUR))
    for row in happened(source, 300, ago=5 * HOUR, until=3 * HOUR):
        execute(
            engine,
            "INSERT INTO activity VALUES (:minute, :what, :label, :bucket, :slot, :count)"
            " ON CONFLICT (minute, what, label, bucket, slot)"
            " DO UPDATE SET count = activity.count + excluded.count",
            **dict(zip(("minute", "what", "label", "bucket", "slot", "count"), row, strict=True)),
        )
    make(engine)
    told_by_sums = read(engine)
    execute(engine, "DELETE FROM activity_sums")
    assert told_by_sums == read(engine)


@pytest.mark.parametrize("quiet", [3 * HOUR, 3 * DAY, 20 * DAY])
def test_sums_go_on_after_a_time_in_which_nothing_happened(
    engine: Engine, quiet: timedelta
) -> None:
    source = random.Random(7)
    long_ago = quiet + 4 * HOUR
    insert(engine, happened(source, 500, ago=long_ago, until=long_ago - 2 * HOUR))
    make(engine, NOW - quiet)
    insert(engine, happened(source, 1_000, ago=3 * HOUR))
    make(engine)
    last = "SELECT max(begins) FROM activity_sums WHERE span_s = :span_s"
    assert one(engine, last, span_s=3600) == TODAY - HOUR
    assert one(engine, last, span_s=900) == TODAY + QUARTER
    told_by_sums = read(engine)
    execute(engine, "DELETE FROM activity_sums")
    assert told_by_sums == read(engine)


def test_a_time_without_sums_is_summed_a_week_at_a_time(engine: Engine) -> None:
    insert(engine, [(TODAY - n * DAY, SUCCEEDED, "orders", 3, 16, 1) for n in range(1, 30)])
    numbers = []
    for _ in range(6):
        make(engine, passes=1)
        numbers.append(one(engine, "SELECT count(*) FROM activity_sums WHERE span_s = 3600"))
    assert numbers == [7, 14, 21, 28, 29, 29]


def test_a_sum_that_stays_as_it_is_is_not_written_again(engine: Engine) -> None:
    insert(engine, happened(random.Random(9), 1_000, ago=6 * HOUR))
    make(engine)
    written = "SELECT max(xmin::text::bigint) FROM activity_sums WHERE begins < :before"
    before = one(engine, written, before=TODAY)
    make(engine, NOW + HOUR)
    assert one(engine, written, before=TODAY) == before


def test_sums_are_removed_with_their_counts(engine: Engine) -> None:
    insert(engine, happened(random.Random(10), 2_000, ago=5 * DAY))
    make(engine)
    with engine.begin() as connection:
        while REMOVERS["activity"](connection, TODAY - 2 * DAY, 500):
            pass
    for column, table in (("minute", "activity"), ("begins", "activity_sums")):
        assert one(engine, f"SELECT min({column}) FROM {table}") >= TODAY - 2 * DAY
    told_by_sums = read(engine)
    execute(engine, "DELETE FROM activity_sums")
    assert told_by_sums == read(engine)
