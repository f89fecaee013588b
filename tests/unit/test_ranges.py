"""A part of the past is shown in whole spans, no finer than its counts are kept."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.console.services import ranges
from ingest.console.services.ranges import Range, Window

NOW = datetime(2026, 1, 31, 12, 34, 56, tzinfo=UTC)
WEEK = 7 * 1_440


def part(since_min: float, until_min: float) -> Window | None:
    """The part from so many minutes ago until so many minutes ago."""
    since, until = (NOW - timedelta(minutes=ago) for ago in (since_min, until_min))
    return ranges.part(since, until, now=NOW)


@pytest.mark.parametrize(
    ("since", "until", "span"),
    [(20, 10, 1), (100, 10, 2), (130, 125, 15), (1_400, 1_390, 15), (1_600, 1_590, 60)],
)
def test_the_spans_are_short_and_few_and_no_finer_than_counts_are_kept(
    since: float, until: float, span: int
) -> None:
    window = part(since, until)
    assert window is not None
    assert window.span == timedelta(minutes=span)


@given(st.floats(0.01, WEEK), st.floats(0, WEEK))
def test_it_holds_all_that_was_asked_for_in_whole_spans(since: float, until: float) -> None:
    window = part(since, until)
    if window is None:
        assert since - until < 1e-6  # times are told apart by the microsecond
        return
    assert window.since <= NOW - timedelta(minutes=since) < window.since + window.span
    assert window.until >= NOW - timedelta(minutes=until) > window.until - window.span
    assert 1 <= len(window.begins) <= 62


@pytest.mark.parametrize(("since", "until"), [(5, 5), (5, 10), (-10, -20), (WEEK + 1, 0)])
def test_what_is_no_part_of_the_past_week_is_none(since: float, until: float) -> None:
    assert part(since, until) is None


def test_the_way_out_is_the_shortest_range_that_reaches_back_so_far() -> None:
    for minutes, wanted in ((30, Range.HOUR), (61, Range.DAY), (2_000, Range.WEEK)):
        assert ranges.covering(NOW - timedelta(minutes=minutes), now=NOW) is wanted
    assert ranges.covering(NOW - timedelta(days=90), now=NOW) is Range.WEEK
