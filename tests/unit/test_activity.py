"""Histograms: what they tell of the durations that they no longer hold."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.store.pipeline import histograms
from ingest.store.pipeline.histograms import (
    BUCKETS,
    CELLS,
    PARTS,
    Counts,
    Histogram,
    Place,
    bucket,
    by_bucket,
    cell,
)
from tests.support.effort import examples

SHORTEST_S = 0.001
LONGEST_S = 2**BUCKETS / 1000
"""Beyond it nothing is known but that it took longer than the last cell's beginning."""

durations = st.floats(SHORTEST_S, LONGEST_S, exclude_max=True)
shares = st.floats(0, 1, exclude_min=True) | st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0])


def histogram(seconds: list[float], *, with_parts: bool = True) -> Histogram:
    """What is read back of durations; without parts, as a release before stored them."""
    counts = Counts()
    for one in seconds:
        counts.add(histograms.place(cell(one)) if with_parts else Place(bucket(one), 0), 1)
    return counts.read()


def percentile(seconds: list[float], share: float) -> float:
    """The shortest that at least `share` of all did not exceed."""
    return sorted(seconds)[max(math.ceil(share * len(seconds)) - 1, 0)]


@settings(max_examples=examples(300), deadline=None)
@given(seconds=st.lists(durations, min_size=1, max_size=60), share=shares)
def test_a_percentile_lies_within_a_tenth_of_the_true_one(
    seconds: list[float], share: float
) -> None:
    told = histogram(seconds).percentile(share)
    assert told is not None
    true = percentile(seconds, share)
    assert true / 1.1 <= told <= true * 1.1


@settings(max_examples=examples(100), deadline=None)
@given(seconds=st.lists(durations, min_size=1, max_size=60), share=shares)
@example(seconds=[1.0, 3.0], share=0.5)  # what is spread adds up to a little less than 1
def test_of_rows_without_parts_it_lies_within_a_factor_of_two(
    seconds: list[float], share: float
) -> None:
    found = histogram(seconds, with_parts=False)
    assert found.total == len(seconds)
    told = found.percentile(share)
    assert told is not None
    true = percentile(seconds, share)
    assert true / 2 <= told <= true * 2


@pytest.mark.parametrize("seconds", [0.0015, 0.02, 0.5, 0.75, 3.0, 90.0, 3_600.0])
def test_a_duration_that_never_changes_is_told_as_it_is(seconds: float) -> None:
    found = histogram([seconds] * 1_000)
    for share in (0.01, 0.5, 0.95, 1.0):
        assert found.percentile(share) == pytest.approx(seconds, rel=0.1)


@settings(max_examples=examples(100), deadline=None)
@given(
    seconds=st.lists(st.floats(0, 10**6), min_size=1, max_size=60),
    older=st.lists(st.floats(0, 10**6), max_size=60),
    low=shares,
    high=shares,
)
def test_a_larger_share_took_no_less_and_all_are_counted(
    seconds: list[float], older: list[float], low: float, high: float
) -> None:
    both = (histogram(seconds).counts, histogram(older, with_parts=False).counts)
    found = Histogram(counts=tuple(map(sum, zip(*both, strict=True))))
    assert found.total == len(seconds) + len(older)
    low, high = sorted((low, high))
    told_low, told_high = found.percentile(low), found.percentile(high)
    assert told_low is not None
    assert told_high is not None
    assert told_low <= told_high


@settings(max_examples=examples(300), deadline=None)
@given(seconds=durations)
def test_a_duration_lies_within_its_cell_and_that_within_its_bucket(seconds: float) -> None:
    low, high = histograms.bounds(cell(seconds))
    assert low <= seconds * (1 + 1e-12)
    assert seconds < high * (1 + 1e-12)
    assert histograms.place(cell(seconds)).bucket == bucket(seconds)


def test_cells_follow_each_other_without_a_gap() -> None:
    edges = [histograms.bounds(number) for number in range(CELLS)]
    assert [low for low, _ in edges[1:]] == [high for _, high in edges[:-1]]
    assert edges[-1][1] == LONGEST_S
    places = [histograms.place(number) for number in range(CELLS)]
    assert places[:6] == [(0, 0), (1, 1), (1, 2), (1, 3), (1, 4), (2, 1)]
    assert places[-1] == (BUCKETS, PARTS)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1.0, 0),  # two clocks that differ
        (0.0, 0),
        (0.000999, 0),
        (0.001, 1),
        (0.001999, 1),
        (0.002, 2),
        (1.0, 10),
        (3_600.0, 22),
        (LONGEST_S, BUCKETS),
        (1e12, BUCKETS),
    ],
)
def test_buckets_double(seconds: float, expected: int) -> None:
    assert bucket(seconds) == histograms.place(cell(seconds)).bucket == expected
    counts = [0] * CELLS
    counts[cell(seconds)] = 7
    assert by_bucket(counts) == [7 if number == expected else 0 for number in range(BUCKETS + 1)]


def test_of_nothing_there_is_no_percentile() -> None:
    assert Histogram().percentile(0.5) is None
    assert Histogram().total == 0


def test_what_took_less_than_a_millisecond_is_told_as_no_longer() -> None:
    told = histogram([0.0, 0.0002, 0.0009]).percentile(1.0)
    assert told is not None
    assert 0 <= told <= SHORTEST_S
