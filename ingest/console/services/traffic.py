"""Traffic over time, told apart by processor, by queue or by source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection

from ingest.console.services import ranges
from ingest.console.services.ranges import Range, Window
from ingest.store.pipeline import metrics, processors
from ingest.store.pipeline.histograms import Histogram
from ingest.store.pipeline.metrics import FAILED, KEY, SUCCEEDED


class Split(StrEnum):
    """What tells the groups apart."""

    PROCESSOR = "processor"
    QUEUE = "queue"
    SOURCE = "source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A processor, a queue or a source, and what happened there."""

    name: str
    total: int
    counts: tuple[int, ...]
    """One for each span."""
    rate: float
    """Of the total, in a second of the time that was measured."""
    p50_s: float | None
    """Half of the calls that succeeded took at most so many seconds; None: none did, or that is not
    known, as by source."""
    p95_s: float | None
    """Likewise, 95 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What happened in each span of a range, by group."""

    by: Split
    unit: str
    """What is counted: attempts of processors and queues, deliveries of sources."""
    begins: tuple[datetime, ...]
    """When each span begins."""
    span_s: float
    """How many seconds a span has."""
    measured_s: float
    """How many seconds of the range were measured."""
    groups: tuple[Group, ...]
    """Those with any, the most first."""


def read(connection: Connection, by: Split, period: Range, *, now: datetime) -> Traffic:
    """Return the traffic of a range that ends at `now`."""
    return within(connection, by, ranges.window(period, now), now=now)


def within(connection: Connection, by: Split, window: Window, *, now: datetime) -> Traffic:
    """Return the traffic of a window. Percentiles are of the time from its begin until `now`.

    A queue has the attempts of the processors that use it now, their replays too.
    """
    whats = [KEY] if by is Split.SOURCE else [SUCCEEDED, FAILED]
    labels = metrics.labels_over_time(
        connection, whats, since=window.since, until=window.until, span=window.span
    )
    queues = processors.present_queues(connection) if by is Split.QUEUE else {}
    named: dict[str, dict[datetime, int]] = {}
    for label, counts in labels.items():
        sums = named.setdefault(_name(by, label, queues), {})
        for begins, count in counts.items():
            sums[begins] = sums.get(begins, 0) + count
    durations: dict[str, list[Histogram]] = {}
    if by is not Split.SOURCE:
        for label, histogram in metrics.by_label(connection, SUCCEEDED, since=window.since).items():
            durations.setdefault(_name(by, label, queues), []).append(histogram)
    measured_s = ranges.measured_s(connection, window, now=now)
    groups = [
        _group(name, counts, window.begins, durations.get(name, []), measured_s=measured_s)
        for name, counts in named.items()
    ]
    return Traffic(
        by=by,
        unit="deliveries" if by is Split.SOURCE else "attempts",
        begins=tuple(window.begins),
        span_s=window.span.total_seconds(),
        measured_s=measured_s,
        groups=tuple(sorted(groups, key=lambda group: (-group.total, group.name))),
    )


def _name(by: Split, label: str, queues: Mapping[str, str]) -> str:
    """Return the group that a label of the metrics belongs to."""
    match by:
        case Split.SOURCE:
            return label.partition(" ")[0]
        case Split.QUEUE:
            return queues.get(label, "unknown")
        case Split.PROCESSOR:
            return label


def _group(
    name: str,
    counts: Mapping[datetime, int],
    begins: list[datetime],
    durations: Sequence[Histogram],
    *,
    measured_s: float,
) -> Group:
    values = tuple(counts.get(moment, 0) for moment in begins)
    together = Histogram(
        counts=tuple(map(sum, zip(*(one.counts for one in durations), strict=True)))
    )
    return Group(
        name=name,
        total=sum(values),
        counts=values,
        rate=sum(values) / measured_s if measured_s else 0.0,
        p50_s=together.percentile(0.5),
        p95_s=together.percentile(0.95),
    )
