"""All about one processor: what it is, what it did in a period, and what is left to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from difflib import get_close_matches

from sqlalchemy import Connection

from ingest.console.services import failures, limits, ranges
from ingest.console.services.failures import ListedFailure
from ingest.console.services.limits import ProcessorLimits
from ingest.console.services.ranges import Window
from ingest.console.ui import masking
from ingest.store.pipeline import metrics, processors
from ingest.store.pipeline.histograms import Histogram
from ingest.store.pipeline.metrics import FAILED, SUCCEEDED, Point
from ingest.store.pipeline.processors import KnownProcessor
from ingest.store.reports import audit_log, heartbeats, processor_work
from ingest.store.reports.audit_log import Action
from ingest.store.reports.heartbeats import WorkerRecord
from ingest.store.reports.processor_work import ProcessorWork

ACTIONS = 10
"""Entries of the audit log, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorSpan:
    """What a processor did in one span of time."""

    begins: datetime
    succeeded: int
    failed: int
    """Attempts that failed, timed out or were lost."""
    p50_s: float | None
    """Half of the calls that succeeded took at most so many seconds; null: none did."""
    p95_s: float | None
    """Likewise, 95 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorPeriod:
    """What a processor did in a period, span by span and altogether."""

    measured_s: float
    """How many seconds of it were measured."""
    span_s: float
    spans: tuple[ProcessorSpan, ...]
    """One after another, empty ones too."""
    succeeded: int
    failures: int
    """Attempts that failed, timed out or were lost."""
    rate: float
    """Jobs that succeeded, per second of the time that was measured."""
    p50_s: float | None
    """Half of the calls that succeeded took at most so many seconds; null: none did."""
    p95_s: float | None
    """Likewise, 95 % of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorDetails(KnownProcessor):
    """A processor: what it is, what it did, and what is left to do."""

    destination: str | None
    """The host that it forwards events to; null: it is no destination."""
    workers: tuple[WorkerRecord, ...]
    """The workers that have it, those that stopped lately without reporting it among them."""
    limits: ProcessorLimits | None
    """How many of its jobs run at once and start in a time; null: any number."""
    work: ProcessorWork
    period: ProcessorPeriod
    """What it did in the period that was asked for."""
    failing: tuple[ListedFailure, ...]
    """What fails now, the most jobs first: its dead and retrying jobs among the newest."""
    actions: tuple[Action, ...]
    """What operators did to it last, the newest first."""


def read(
    connection: Connection,
    name: str,
    window: Window,
    *,
    destinations: Mapping[str, str],
    now: datetime,
    masked: bool,
) -> ProcessorDetails:
    """Return all about a processor, with what it did in a window. `destinations` are the hosts of
    those that are one.

    Raises:
        NotFound: no worker has registered it.
    """
    known = processors.one(connection, name)
    if masked:
        known = replace(
            known,
            pause_reason=masking.hide(known.pause_reason),
            breaker=masking.masked_breaker(known.breaker),
        )
    actions = audit_log.of_processor(connection, name, limit=ACTIONS)
    return ProcessorDetails(
        **{field.name: getattr(known, field.name) for field in fields(KnownProcessor)},
        destination=destinations.get(name),
        workers=tuple(heartbeats.workers_with(connection, name)),
        limits=limits.read(connection, name),
        work=processor_work.read(connection, known),
        period=_period(connection, name, window, now=now),
        failing=failures.of_processor(connection, name, window, now=now, masked=masked),
        actions=tuple(masking.action(action, masked=masked) for action in actions),
    )


def names(connection: Connection, *, close_to: str) -> list[str]:
    """Return the names of all processors, those first that resemble another name."""
    known = sorted(processors.types(connection))
    close = get_close_matches(close_to, known)
    return [*close, *(name for name in known if name not in close)]


def _period(connection: Connection, name: str, window: Window, *, now: datetime) -> ProcessorPeriod:
    points = metrics.over_time(
        connection,
        since=window.since,
        until=window.until,
        span=window.span,
        counted=(FAILED,),
        timed=(SUCCEEDED,),
        label=name,
    )
    measured_s = ranges.measured_s(connection, window, now=min(now, window.until))
    took = _together([point.histograms.get(SUCCEEDED, Histogram()) for point in points])
    return ProcessorPeriod(
        measured_s=measured_s,
        span_s=window.span.total_seconds(),
        spans=tuple(map(_span, points)),
        succeeded=took.total,
        failures=sum(point.count(FAILED) for point in points),
        rate=took.total / measured_s if measured_s else 0.0,
        p50_s=took.percentile(0.5),
        p95_s=took.percentile(0.95),
    )


def _span(point: Point) -> ProcessorSpan:
    took = point.histograms.get(SUCCEEDED, Histogram())
    return ProcessorSpan(
        begins=point.begins,
        succeeded=took.total,
        failed=point.count(FAILED),
        p50_s=took.percentile(0.5),
        p95_s=took.percentile(0.95),
    )


def _together(parts: Sequence[Histogram]) -> Histogram:
    counts = zip(*(part.counts for part in parts), strict=True)
    return Histogram(counts=tuple(map(sum, counts)))
