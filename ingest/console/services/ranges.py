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


_MOST_SPANS = 60
_PART_SPANS = tuple(timedelta(minutes=minutes) for minutes in (1, 2, 5, 15, 30, 60, 120, 360))


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A time that is divided into whole spans. Of a range, which ends now, the last is under
    way."""

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


def part(since: datetime, until: datetime, *, now: datetime) -> Window | None:
    """Return the window of a part of the past; None: it is none, or longer than a week.

    It begins and ends with whole spans: the shortest of which there are few enough, and that the
    counts are still kept by.
    """
    length = min(until, now) - since
    if not timedelta(0) < length <= LENGTHS[Range.WEEK]:
        return None
    kept_by = metrics.kept_by(since, now=now)
    span = next(span for span in _PART_SPANS if span >= kept_by and length / span <= _MOST_SPANS)
    return Window(
        since=_round_up(since + timedelta(microseconds=1) - span, span),
        until=_round_up(min(until, now), span),
        span=span,
    )


def covering(since: datetime, *, now: datetime) -> Range:
    """Return the shortest range that reaches back to a time, or else the longest."""
    return next((period for period in Range if now - since <= LENGTHS[period]), Range.WEEK)


def measured_s(connection: Connection, window: Window, *, now: datetime) -> float:
    """Return how many seconds of a window were measured: all of them, but for those before the
    pipeline's first count. 0: nothing was counted.

    Rates are of this time. A pipeline that was started ten minutes ago has done nothing before.
    """
    begins = metrics.counted_since(connection, since=window.since)
    return 0.0 if begins is None else max(1.0, (now - begins).total_seconds())


def _round_up(moment: datetime, span: timedelta) -> datetime:
    """Return the next whole `span`, counted from midnight UTC of a Monday."""
    monday = datetime(2024, 1, 1, tzinfo=UTC)
    return moment + (monday - moment) % span
