"""What every page shows of the state of the system."""

from typing import cast

import pytest

from ingest.console.services import alerts
from ingest.console.services.alerts import PageStatus
from ingest.console.services.overview import MOST_ON_EACH_PAGE, OverviewCache, Status


class Known:
    """In place of the cache: what it knows."""

    def __init__(self, known: Status | None) -> None:
        self._known = known

    def status(self) -> Status | None:
        return self._known


def read(known: Status | None) -> PageStatus:
    return alerts.read(cast(OverviewCache, Known(known)))


@pytest.mark.parametrize(
    ("counted", "shown", "has_more"),
    [
        (0, 0, False),
        (MOST_ON_EACH_PAGE, MOST_ON_EACH_PAGE, False),
        (MOST_ON_EACH_PAGE + 1, MOST_ON_EACH_PAGE, True),
    ],
)
def test_beyond_those_that_are_counted_there_are_more_dead_letters(
    counted: int, shown: int, has_more: bool
) -> None:
    status = read(Status(alerts=(), dead_letters=counted))
    assert (status.dead_letters, status.has_more_dead_letters) == (shown, has_more)


def test_without_a_database_none_are_known() -> None:
    status = read(None)
    assert (status.dead_letters, status.has_more_dead_letters) == (0, False)
