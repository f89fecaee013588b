"""An erasure reads no faster than it is told, also when it goes on."""

import pytest

from ingest.erasure.row_rate import RowRate


@pytest.mark.parametrize("before", [0, 10_000])
def test_it_waits_for_as_long_as_the_rows_since_its_start_may_take(before: int) -> None:
    waits: list[float] = []
    rate = RowRate(100, read=before, clock=lambda: 5.0, sleep=waits.append)
    rate.wait(before)
    rate.wait(before + 250)
    assert waits == [2.5]


def test_without_a_rate_nothing_waits() -> None:
    waits: list[float] = []
    RowRate(None, sleep=waits.append).wait(10**9)
    assert not waits
