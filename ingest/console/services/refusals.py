"""Which refused requests and rejected deliveries somebody asks for, in pages and the API."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from ingest.console.errors import BadRequest
from ingest.console.services import ranges
from ingest.console.services.ranges import Range
from ingest.store.reports.refusal_counts import RefusalFilter
from ingest.timestamps import TIME_FORMS, parse_moment

NONE = "-"
"""As a source: none that is configured. As an address: further ones, which are not told apart."""
_MOST_BARS = 130
_SPANS = (
    timedelta(minutes=1),
    timedelta(minutes=15),
    timedelta(hours=1),
    timedelta(hours=2),
    timedelta(days=1),
)
# Old rows are those of a quarter of an hour, then of an hour; shorter spans would be empty.
_LEAST_SPANS = (
    (timedelta(hours=26), timedelta(hours=1)),
    (timedelta(hours=2), timedelta(minutes=15)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What somebody asks for, as it was written."""

    range: Range = Range.DAY
    since: str | None = None
    until: str | None = None
    """A time of either takes the place of the range."""
    source: str | None = None
    reason: str | None = None
    address: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A span of time, and what its chart is divided into."""

    since: datetime
    until: datetime
    span: timedelta

    @property
    def begins(self) -> list[datetime]:
        """Return when each span begins."""
        count = -((self.since - self.until) // self.span)
        return [self.since + number * self.span for number in range(count)]


def period(asked: Asked, now: datetime) -> Period:
    """Return the period that is asked for, in whole spans.

    Raises:
        BadRequest: a time is none, or it ends before it begins.
    """
    since, until = _bounds(asked, now)
    if asked.since is None and asked.until is None:
        return Period(since=since, until=until, span=ranges.window(asked.range, now).span)
    if since >= until:
        raise BadRequest("since: it is not before until.", reason="bad_time")
    span = _span(since, until, now)
    midnight = since.replace(hour=0, minute=0, second=0, microsecond=0)
    return Period(since=since - (since - midnight) % span, until=until, span=span)


def wanted(asked: Asked, now: datetime) -> RefusalFilter:
    """Return the filter of refused requests.

    Raises:
        BadRequest: a time is none.
    """
    since, until = _bounds(asked, now)
    return RefusalFilter(
        since=since,
        until=until,
        source="" if asked.source == NONE else asked.source or None,
        reason=asked.reason or None,
        client="" if asked.address == NONE else asked.address or None,
        text=asked.text or None,
    )


def _bounds(asked: Asked, now: datetime) -> tuple[datetime, datetime]:
    if asked.since is None and asked.until is None:
        window = ranges.window(asked.range, now)
        return window.since, window.until
    until = now if asked.until is None else _moment("until", asked.until, now)
    if asked.since is None:
        return until - ranges.LENGTHS[asked.range], until
    return _moment("since", asked.since, now), until


def _moment(name: str, text: str, now: datetime) -> datetime:
    moment = parse_moment(text, now=now)
    if moment is None:
        raise BadRequest(f"{name}: {text!r} is not a time: write {TIME_FORMS}.", reason="bad_time")
    return moment


def _span(since: datetime, until: datetime, now: datetime) -> timedelta:
    """Return the shortest span of which a chart has few enough, and which old rows fit."""
    least = next((span for age, span in _LEAST_SPANS if now - since > age), _SPANS[0])
    fitting = (span for span in _SPANS if span >= least and (until - since) / span <= _MOST_BARS)
    return next(fitting, timedelta(days=math.ceil((until - since) / _MOST_BARS / _SPANS[-1])))
