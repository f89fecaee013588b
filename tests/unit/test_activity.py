"""Histograms in buckets that double: what they tell of the durations that they no longer hold."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.store.pipeline import metrics
from ingest.store.pipeline.metrics import BUCKETS, Histogram, bucket
from tests.support.effort import examples

SHORTEST_S = 0.001
LONGEST_S = 2**BUCKETS / 1000
"""Beyond it nothing is known but that it took longer than the last bucket's beginning."""

durations = st.floats(SHORTEST_S, LONGEST_S, exclude_max=True)
shares = st.floats(0, 1, exclude_min=True) | st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0])


def histogram(seconds: list[float]) -> Histogram:
    counts = [0] * (BUCKETS + 1)
    for each in seconds:
        counts[bucket(each)] += 1
    return Histogram(counts=tuple(counts))


def percentile(seconds: list[float], share: float) -> float:
    """The shortest that at least `share` of all did not exceed."""
    return sorted(seconds)[max(math.ceil(share * len(seconds)) - 1, 0)]


@settings(max_examples=examples(300), deadline=None)
@given(seconds=st.lists(durations, min_size=1, max_size=60), share=shares)
def test_a_percentile_lies_within_a_factor_of_two_of_the_true_one(
    seconds: list[float], share: float
) -> None:
    told = histogram(seconds).percentile(share)
    assert told is not None
    true = percentile(seconds, share)
    assert true / 2 <= told <= true * 2


@settings(max_examples=examples(100), deadline=None)
@given(seconds=st.lists(st.floats(0, 10**6), min_size=1, max_size=60), low=shares, high=shares)
def test_a_larger_share_took_no_less_and_all_are_counted(
    seconds: list[float], low: float, high: float
) -> None:
    found = histogram(seconds)
    assert found.total == len(seconds)
    low, high = sorted((low, high))
    told_low, told_high = found.percentile(low), found.percentile(high)
    assert told_low is not None
    assert told_high is not None
    assert told_low <= told_high


@settings(max_examples=examples(300), deadline=None)
@given(seconds=durations)
def test_a_duration_lies_within_its_bucket(seconds: float) -> None:
    low, high = metrics._bounds(bucket(seconds))
    assert low <= seconds < high


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
    assert bucket(seconds) == expected


def test_of_nothing_there_is_no_percentile() -> None:
    assert Histogram().percentile(0.5) is None
    assert Histogram().total == 0


def test_what_took_less_than_a_millisecond_is_told_as_no_longer() -> None:
    told = histogram([0.0, 0.0002, 0.0009]).percentile(1.0)
    assert told is not None
    assert 0 <= told <= SHORTEST_S
