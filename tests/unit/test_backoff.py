import random

from hypothesis import given
from hypothesis import strategies as st

from workers.retry import RetryPolicy, ceiling, delay

rules = st.builds(RetryPolicy, base_s=st.floats(0.001, 1_000), cap_s=st.floats(0.001, 100_000))


def test_the_ceiling_doubles_up_to_the_cap() -> None:
    given_rules = RetryPolicy(base_s=5, cap_s=60)
    assert [ceiling(n, given_rules) for n in range(1, 7)] == [5, 10, 20, 40, 60, 60]


@given(st.integers(1, 1_000_000), rules, st.randoms(use_true_random=False))
def test_a_delay_is_anything_up_to_the_ceiling(
    failures: int, given_rules: RetryPolicy, source: random.Random
) -> None:
    waited = delay(failures, given_rules, random=source.uniform)
    assert 0 <= waited <= ceiling(failures, given_rules) <= given_rules.cap_s


@given(st.integers(1, 1_000), rules)
def test_a_ceiling_never_falls(failures: int, given_rules: RetryPolicy) -> None:
    assert ceiling(failures + 1, given_rules) >= ceiling(failures, given_rules)


def test_the_jitter_is_full() -> None:
    source = random.Random(7)
    given_rules = RetryPolicy(base_s=10, cap_s=1_000)
    waits = [delay(3, given_rules, random=source.uniform) for _ in range(2_000)]
    assert min(waits) < 1
    assert max(waits) > 39
    assert 18 < sum(waits) / len(waits) < 22
