"""Counts and rates are of the period that a page names: those of before it are left out, and a rate
is of the time that was measured."""

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine

from ingest.console.services import traffic
from ingest.console.services.ranges import Range
from ingest.console.services.traffic import Split
from ingest.store.pipeline import processors
from ingest.store.reports import refusal_counts
from ingest.store.reports.refusal_counts import RefusedRequests
from tests.integration.test_behind import REGISTERED
from tests.integration.test_overview_page import Read, overview
from tests.support.rows import execute

__all__ = ["overview"]


def note(engine: Engine, what: str, label: str, count: int, *, ago: timedelta) -> None:
    execute(
        engine,
        "INSERT INTO activity VALUES (date_trunc('minute', now() - CAST(:ago AS interval)), :what,"
        " :label, 10, 64, :count)",  # from 861 ms to below 1.02 s
        ago=ago,
        what=what,
        label=label,
        count=count,
    )


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


@pytest.fixture
def worked(engine: Engine) -> None:
    """What was done 10 minutes ago, and some hours and days before."""
    with engine.begin() as connection:
        processors.register(connection, [REGISTERED])
    for ago, count in ((minutes(10), 600), (minutes(300), 5_000), (minutes(4 * 1_440), 20_000)):
        note(engine, "succeeded", "orders", count, ago=ago)
        note(engine, "failed", "orders", count // 100, ago=ago)
        note(engine, "refused", "bad_signature", count // 200, ago=ago)
        note(engine, "key", "awalchat 0123abcd", count, ago=ago)
        note(engine, "key", "awalchat 4567cdef", 1, ago=ago)
    note(engine, "refused", "too_large", 9, ago=minutes(300))
    counts = (("bad_signature", 3, 10), ("bad_signature", 25, 300), ("too_large", 9, 300))
    with engine.begin() as connection:
        refusal_counts.add(
            connection,
            [refusals(*each) for each in (*counts, ("bad_signature", 100, 4 * 1_440))],
        )


def refusals(reason: str, count: int, ago: float) -> RefusedRequests:
    at = datetime.now(UTC) - minutes(ago)
    return RefusedRequests(
        minute=at.replace(second=0, microsecond=0),
        reason=reason,
        source="awalchat",
        client="192.0.2.1",
        status=401,
        sentence="",
        count=count,
        first_at=at,
        last_at=at,
        request=UUID(int=0),
    )


def test_a_processors_rate_is_of_the_time_since_the_first_count(
    engine: Engine, overview: Read
) -> None:
    """600 in ten minutes are 60 a minute, not 10, though the period is an hour."""
    with engine.begin() as connection:
        processors.register(connection, [REGISTERED])
    note(engine, "succeeded", "orders", 600, ago=minutes(10))
    page = overview(page="/processors")
    assert "failures of the last hour, measured for" in page
    assert 45 <= float(numbers(page)[0]) <= 60  # the machine may be slow


@pytest.mark.usefixtures("worked")
def test_a_processors_numbers_are_those_of_the_period(overview: Read) -> None:
    # Counts of before the period show that all of it was measured.
    hour, day = overview(page="/processors"), overview("day", page="/processors")
    assert "measured for" not in hour + day
    rate, *others = numbers(hour)
    assert 10.0 <= float(rate) <= 10.2  # 600 in the 59 to 60 minutes of the chart
    assert others == ["939 ms", "939 ms", "6"]
    assert numbers(day) == ("3.9", "939 ms", "939 ms", "56")


def numbers(page: str) -> tuple[str, ...]:
    """Return the only processor's rate, p50, p95 and failures."""
    row = re.search(r" events (\S+)/min (\S+ \S+) (\S+ \S+) (\d+) ", page)
    assert row, page
    return row.groups()


@pytest.mark.usefixtures("worked")
def test_refusals_are_those_of_the_period(overview: Read) -> None:
    hour = overview(page="/refusals")
    assert "3 \N{MULTIPLICATION SIGN} bad_signature 401" in hour
    assert "too_large" not in hour
    day = overview("day", page="/refusals")
    assert "28 \N{MULTIPLICATION SIGN} bad_signature 401" in day
    assert "9 \N{MULTIPLICATION SIGN} too_large 401" in day
    assert "128 \N{MULTIPLICATION SIGN} bad_signature 401" in overview("week", page="/refusals")
    assert "Refused 3 not answered 200" in overview()
    assert "Refused 37 not answered 200" in overview("day")
    assert "Refused 137 not answered 200" in overview("week")


@pytest.mark.usefixtures("worked")
def test_traffic_is_told_apart_by_processor_queue_and_source(engine: Engine) -> None:
    note(engine, "succeeded", "gone", 7, ago=minutes(12))
    now = datetime.now(UTC)

    def totals(by: Split, period: Range = Range.HOUR) -> list[tuple[str, int]]:
        with engine.connect() as connection:
            found = traffic.read(connection, by, period, now=now)
        assert len(found.begins) == len(found.groups[0].counts)
        assert all(sum(group.counts) == group.total for group in found.groups)
        return [(group.name, group.total) for group in found.groups]

    assert totals(Split.PROCESSOR) == [("orders", 606), ("gone", 7)]
    assert totals(Split.QUEUE) == [("events", 606), ("unknown", 7)]
    assert totals(Split.SOURCE) == [("awalchat", 601)]
    assert totals(Split.SOURCE, Range.WEEK) == [("awalchat", 25_603)]


@pytest.mark.usefixtures("worked")
def test_the_overview_splits_its_bars_by_what_the_reader_chooses(overview: Read) -> None:
    assert "Attempts by outcome" in overview()
    page = overview("hour&by=processor")
    assert "Attempts by processor orders 606" in page
    assert "Deliveries by outcome" in page
    assert "Deliveries by source awalchat 601" in overview("hour&by=source")
    assert "Attempts by queue events 606" in overview("hour&by=queue")
    assert "Attempts by outcome" in overview("hour&by=nothing")
