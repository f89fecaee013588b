"""The charts of the overview: what their bars are split by, and what they lead to."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup

from ingest.console.services.overview import Overview, TimeBucket
from ingest.console.services.traffic import Group, Split, Traffic
from ingest.console.ui.charts import Series, bars, lines
from ingest.console.ui.formats import iso
from ingest.console.ui.paths import between, events_between, link

_GROUPS = 5
"""So many groups have a colour of their own; the others share one."""
_OTHERS = "others"

Link = Callable[[datetime, datetime], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Charts:
    """The charts, as SVG, and what their bars tell apart."""

    deliveries: Markup
    deliveries_by: str
    attempts: Markup
    attempts_by: str
    lag: Markup
    response_time: Markup


def draw(overview: Overview, traffic: Traffic | None) -> Charts:
    """Draw the charts; `traffic` splits the bars of what it counts, None: nothing is split."""
    deliveries, attempts = _deliveries(overview), _attempts(overview)
    deliveries_by = attempts_by = "outcome"
    if traffic is not None:
        split = _split(traffic)
        if traffic.by is Split.SOURCE:
            deliveries, deliveries_by = split, traffic.by.value
        else:
            attempts, attempts_by = split, traffic.by.value
    times = [bucket.begins for bucket in overview.buckets]
    span = timedelta(seconds=overview.span_s)
    return Charts(
        deliveries=bars(
            deliveries, times, span=span, unit="deliveries", label="Deliveries over time"
        ),
        deliveries_by=deliveries_by,
        attempts=bars(attempts, times, span=span, unit="attempts", label="Attempts over time"),
        attempts_by=attempts_by,
        lag=lines(
            [
                _series(overview, "p50", lambda bucket: bucket.lag_p50_s),
                _series(overview, "p95", lambda bucket: bucket.lag_p95_s),
            ],
            times,
            span=span,
            label="Time from receipt to success",
        ),
        response_time=lines(
            [
                _series(overview, "p50", lambda bucket: bucket.answer_p50_s),
                _series(overview, "p95", lambda bucket: bucket.answer_p95_s),
            ],
            times,
            span=span,
            label="Response time of the receiver",
        ),
    )


def _deliveries(overview: Overview) -> list[Series]:
    return [
        _series(
            overview,
            "events",
            lambda bucket: bucket.accepted - bucket.duplicates,
            tone="accepted",
            link=events_between(),
        ),
        _series(overview, "duplicates", lambda bucket: bucket.duplicates),
        _series(
            overview,
            "rejected",
            lambda bucket: bucket.rejected,
            link=between(_to_rejected, iso),
            leads_to="deliveries",
        ),
    ]


def _attempts(overview: Overview) -> list[Series]:
    return [
        _series(overview, "succeeded", lambda bucket: bucket.succeeded, link=events_between()),
        _series(overview, "failed", lambda bucket: bucket.failed, link=events_between()),
    ]


def _split(traffic: Traffic) -> list[Series]:
    """Return a series for each of the largest groups, and one for the others."""
    shown, others = traffic.groups[:_GROUPS], traffic.groups[_GROUPS:]
    series = [
        Series(
            name=group.name,
            tone=f"group-{place}",
            values=group.counts,
            link=_to_group(traffic.by, group),
        )
        for place, group in enumerate(shown, start=1)
    ]
    if others:
        sums = [sum(counts) for counts in zip(*(group.counts for group in others), strict=True)]
        series.append(Series(name=_OTHERS, tone="group-others", values=sums))
    return series


def _to_group(by: Split, group: Group) -> Link | None:
    """Return what leads to the events of a group; no search finds those of a queue."""
    match by:
        case Split.PROCESSOR:
            return events_between(processor=group.name)
        case Split.SOURCE:
            return events_between(source=group.name)
        case Split.QUEUE:
            return None


def _to_rejected(since: datetime, until: datetime) -> str:
    """Return what leads to the deliveries that were rejected from a time until another."""
    return link("/refusals", kind="rejected", since=iso(since), until=iso(until))


def _series(
    overview: Overview,
    name: str,
    value: Callable[[TimeBucket], float | None],
    *,
    tone: str | None = None,
    link: Link | None = None,
    leads_to: str = "events",
) -> Series:
    values = [value(bucket) for bucket in overview.buckets]
    return Series(name=name, tone=tone or name, values=values, link=link, leads_to=leads_to)
