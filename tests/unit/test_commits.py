"""What is counted of the commits of a receiver, and how far the senders' clocks are off."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from ingest.monitoring import catalogue
from ingest.receiver.commits import Commits
from ingest.sources.base import Source
from ingest.store.pipeline.deliveries import Delivery

SIGNED_AT = datetime(2026, 12, 1, tzinfo=UTC)
SOURCES = cast(
    Mapping[str, Source],
    {
        slug: SimpleNamespace(signed_at=lambda headers: headers and SIGNED_AT)
        for slug in ("shop", "bank")
    },
)


def delivery(source: str, *, after_s: float) -> Delivery:
    """A delivery that came so long after it was signed, by our clock."""
    fields: dict[str, Any] = {
        "id": UUID(int=1),
        "source": source,
        "received_at": SIGNED_AT + timedelta(seconds=after_s),
        "headers": '[["x", "y"]]',
    }
    return cast(Delivery, SimpleNamespace(**fields))


def skews(commits: Commits) -> dict[str, float]:
    """The skews that Prometheus is told, by source."""
    return {
        sample.labels[0]: cast(float, sample.value)
        for sample in commits.read()
        if sample.metric is catalogue.CLOCK_SKEW
    }


def test_a_skew_is_of_the_last_delivery_of_a_quarter_of_an_hour() -> None:
    """A clock that was put right is not told of until a quiet source delivers again."""
    now = 0.0
    commits = Commits(SOURCES, clock=lambda: now)
    commits.succeeded([delivery("shop", after_s=-40), delivery("bank", after_s=2)], 0.01)
    assert skews(commits) == {"shop": -40.0, "bank": 2.0}
    now = 600.0
    commits.succeeded([delivery("bank", after_s=3)], 0.01)
    now = 900.0
    assert skews(commits) == {"shop": -40.0, "bank": 3.0}
    now = 901.0
    assert skews(commits) == {"bank": 3.0}


def test_one_delivery_stands_for_those_of_five_seconds() -> None:
    now = 0.0
    commits = Commits(SOURCES, clock=lambda: now)
    for now, seen in ((0.0, 1.0), (4.9, 1.0), (5.0, 5.0)):
        commits.succeeded([delivery("shop", after_s=now or 1.0)], 0.01)
        assert skews(commits) == {"shop": seen}
