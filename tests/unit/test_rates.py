"""Rates: what they are written as, and that no window ever has more starts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import rates
from ingest.rates import Rate

steps = st.lists(
    st.tuples(st.floats(0, 3, allow_nan=False), st.integers(0, 30)), min_size=1, max_size=200
)


@pytest.mark.parametrize(
    ("written", "rate", "spelled"),
    [
        ("50/s", Rate(50, 1), "50/s"),
        ("1000/m", Rate(1000, 60), "1000/m"),
        (" 500 / h ", Rate(500, 3600), "500/h"),
        ("10/5s", Rate(10, 5), "10/5s"),
        ("10/120s", Rate(10, 120), "10/2m"),
        ("1/d", Rate(1, 86_400), "1/d"),
    ],
)
def test_a_rate_is_a_number_for_a_time(written: str, rate: Rate, spelled: str) -> None:
    assert rates.parse(written) == rate
    assert str(rate) == spelled
    assert rates.parse(str(rate)) == rate


@pytest.mark.parametrize(
    "nonsense",
    ["", "50", "50/", "0/s", "5/0s", "-1/s", "1.5/s", "5/2d", "9999999/s", "50/sec", "\u0665/s"],
)
def test_nonsense_is_refused_with_a_sentence(nonsense: str) -> None:
    with pytest.raises(ValueError, match="rate"):
        rates.parse(nonsense)


@given(st.integers(1, 40), st.integers(1, 10), steps)
def test_no_window_ever_has_more_starts_than_the_rate(
    starts: int, window_s: int, taken: list[tuple[float, int]]
) -> None:
    rate = Rate(starts, window_s)
    log: list[tuple[float, int]] = []
    began: list[float] = []
    now = 1_760_000_000.0
    for later, wanted in taken:
        now += later
        count = min(wanted, rate.allowed(log, now))
        log = rate.noted(log, now, count)
        began += [now] * count
        assert len(log) <= 102
        for at in began:
            assert sum(at <= other < at + window_s for other in began) <= starts


@given(st.integers(1, 40), st.integers(1, 10), steps)
def test_the_next_start_is_allowed_when_it_is_said_to_be(
    starts: int, window_s: int, taken: list[tuple[float, int]]
) -> None:
    rate = Rate(starts, window_s)
    log: list[tuple[float, int]] = []
    now = 1_760_000_000.0
    for later, wanted in taken:
        now += later
        log = rate.noted(log, now, min(wanted, rate.allowed(log, now)))
        next_at = rate.next_at(log, now)
        assert rate.allowed(log, next_at) > 0
        assert next_at <= now + window_s
        if next_at > now:
            assert rate.allowed(log, now) == 0


def test_a_clock_that_is_set_back_holds_up_nothing_for_longer_than_a_window() -> None:
    rate = Rate(1, 10)
    log = rate.noted([], 5_000.0, 1)
    assert rate.allowed(log, 1_000.0) == 0
    assert rate.next_at(log, 1_000.0) == 1_010.0


def test_a_rate_that_is_lowered_waits_until_enough_starts_are_past() -> None:
    log = [(0.0, 5), (1.0, 5)]
    assert Rate(3, 10).next_at(log, 2.0) == 11.0
    assert Rate(6, 10).next_at(log, 2.0) == 10.0


@given(st.from_regex(rates.PATTERN, fullmatch=True))
def test_every_rate_of_the_documented_pattern_is_read(text: str) -> None:
    assert rates.parse(text).starts >= 1
