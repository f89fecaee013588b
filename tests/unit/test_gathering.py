"""For how long a receiver collects ids before its next message."""

import pytest

from ingest.dispatch import gather_s


@pytest.mark.parametrize(
    ("sent", "waiting", "expected_s"),
    [
        (1, 0, 0.01),
        (3, 0, 0.03),
        (5, 0, 0.05),
        (199, 0, 0.05),
        (1, 4, 0.02),
        (5, 4, 0.05),
        (1, 100, 0.5),
        (1, 100_000, 1.0),
    ],
)
def test_few_ids_go_soon_and_what_waits_anyway_is_collected(
    sent: int, waiting: int, expected_s: float
) -> None:
    assert gather_s(sent, waiting) == pytest.approx(expected_s)
