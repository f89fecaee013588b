"""The spans of time that pages look back over, and what they are divided into."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection

from ingest.store.pipeline import metrics


class Range(StrEnum):
    """How far a page looks back."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"


LENGTHS = {
    Range.HOUR: timedelta(hours=1),
    Range.DAY: timedelta(days=1),
    Range.WEEK: timedelta(days=7),
}
_BUCKET_LENGTHS = {
    Range.HOUR: timedelta(minutes=1),
    Range.DAY: timedelta(minutes=15),
    Range.WEEK: timedelta(hours=2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A range that ends now: whole spans, of which the last is under way."""

    since: datetime
    until: datetime
    span: timedelta

    @property
    def begins(self) -> list[datetime]:
        """Return when each span begins."""
        count = round((self.until - self.since) / self.span)
        return [self.since + number * self.span for number in range(count)]


def window(period: Range, now: datetime) -> Window:
    """Return the window of a range, as of `now`."""
    span = _BUCKET_LENGTHS[period]
    until = _round_up(now, span)
    return Window(since=until - LENGTHS[period], until=until, span=span)


def measured_s(connection: Connection, window: Window, *, now: datetime) -> float:
    """Return how many seconds of a window were measured: those since the first count in it.

    Rates are of this time. A pipeline that was started ten minutes ago has done nothing before.
    """
    first = metrics.first_minute(connection, since=window.since)
    return 0.0 if first is None else max(1.0, (now - first).total_seconds())


def _round_up(moment: datetime, span: timedelta) -> datetime:
    """Return the next whole `span`, counted from midnight UTC of a Monday."""
    monday = datetime(2024, 1, 1, tzinfo=UTC)
    return moment + (monday - moment) % span
