"""The processors and what they did in a period, as pages and API show them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import Connection

from ingest.console.services import ranges
from ingest.console.services.ranges import Range
from ingest.console.ui import masking
from ingest.store.pipeline import jobs, metrics, processors, unfinished
from ingest.store.pipeline.histograms import Histogram
from ingest.store.pipeline.jobs import ParkedJobs
from ingest.store.pipeline.metrics import FAILED, SUCCEEDED
from ingest.store.pipeline.processors import ProcessorRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorView(ProcessorRecord):
    """A registered processor: its unfinished jobs, and what it did in the period."""

    rate: float
    """Jobs that succeeded, per second of the time that was measured."""
    p50_s: float | None
    """Half of the calls that succeeded took at most so many seconds; None: none did."""
    p95_s: float | None
    """Likewise, 95 % of them."""
    failures: int
    """Failed attempts."""
    parked: tuple[ParkedJobs, ...]
    """Its jobs that no worker may or can take now, by queue."""
    destination: str | None
    """The host that it forwards events to; null: it is no destination."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processors:
    """All processors, and the period that their rates, percentiles and failures are of."""

    range: Range
    measured_s: float
    """How many seconds of it were measured."""
    views: tuple[ProcessorView, ...]


def read(
    connection: Connection,
    period: Range,
    *,
    destinations: Mapping[str, str],
    now: datetime,
    masked: bool,
) -> Processors:
    """Return every processor that was ever registered, by name, with what it did in a period that
    ends at `now`. `destinations` are the hosts of those that are one."""
    window = ranges.window(period, now)
    parked = jobs.parked(connection, at_most=unfinished.MOST_PARKED)
    succeeded = metrics.by_label(connection, SUCCEEDED, since=window.since)
    failed = metrics.by_label(connection, FAILED, since=window.since)
    measured_s = ranges.measured_s(connection, window, now=now)
    known = processors.all_of_them(connection, counted=unfinished.read(connection))
    records = masking.processors(known, masked=masked)
    return Processors(
        range=period,
        measured_s=measured_s,
        views=tuple(
            _view(
                record,
                succeeded.get(record.name, Histogram()),
                failures=failed.get(record.name, Histogram()).total,
                parked=tuple(group for group in parked if group.processor == record.name),
                measured_s=measured_s,
                destination=destinations.get(record.name),
            )
            for record in records
        ),
    )


def _view(
    record: ProcessorRecord,
    durations: Histogram,
    *,
    failures: int,
    parked: tuple[ParkedJobs, ...],
    measured_s: float,
    destination: str | None,
) -> ProcessorView:
    known = {field.name: getattr(record, field.name) for field in fields(ProcessorRecord)}
    return ProcessorView(
        **known,
        rate=durations.total / measured_s if measured_s else 0.0,
        p50_s=durations.percentile(0.5),
        p95_s=durations.percentile(0.95),
        failures=failures,
        parked=parked,
        destination=destination,
    )
