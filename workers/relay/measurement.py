"""Measures the state of the tables every few seconds, so that no scrape waits for PostgreSQL.

A relay does so in a thread with a connection of its own, and only where its metrics are served.
Several relays measure the same.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from sqlalchemy import Engine

from ingest import logs
from ingest.monitoring import catalogue
from ingest.monitoring.catalogue import Metric
from ingest.monitoring.samples import Sample
from ingest.store import causes, partitions
from ingest.store.reports import gauges
from ingest.store.reports.gauges import Gauges, Lane
from ingest.store.retention import lateness
from ingest.store.retention.ages import Ages

_INTERVAL_S = 15.0
_SHARE = 10
"""Measuring takes at most a tenth of the time, however much waits."""
_KEPT_S = 300.0
"""What was measured longer ago says nothing of now. `IngestMeasurementOld` fires at this age."""
_LONGEST_PAUSE_S = 150.0
"""What took more than a tenth of this did not measure, but hang: PostgreSQL was away or locked. The
state is to be known again soon after that."""

log = logs.logger(__name__)


class Measurement:
    """Measures until the process ends, and keeps the last values."""

    def __init__(self, engine: Engine, ages: Ages, *, clock: Callable[[], float]) -> None:
        """`ages` are those of retention; `clock` returns Unix time in seconds."""
        self._engine = engine
        self._ages = ages
        self._clock = clock
        self._samples: list[Sample] = []
        self._measured_at = 0.0
        self._pause = threading.Event()  # never set; time.sleep fails under libfaketime
        self._thread = threading.Thread(target=self._run, name="measurement", daemon=True)

    def start(self) -> None:
        """Start to measure."""
        self._thread.start()

    def read(self) -> list[Sample]:
        """Return the values of the last measurement, for Prometheus, and when it was. Values are
        left out before the first, and when they are too old."""
        measured_at, samples = self._measured_at, self._samples
        is_old = self._clock() - measured_at > _KEPT_S
        return [Sample(catalogue.MEASURED_AT, measured_at), *(() if is_old else samples)]

    def measure(self) -> None:
        """Measure once.

        Raises:
            SQLAlchemyError: PostgreSQL is away.
        """
        began = time.monotonic()
        with self._engine.begin() as connection:
            state = gauges.read(connection)
            days = partitions.days(connection)
            late = lateness.read(connection, self._ages, now=state.now)
        ahead = (days[-1] - state.now.date()).days if days else -1
        self._samples = [
            *_samples(state),
            Sample(catalogue.PARTITION_DAYS, ahead),
            *_by_label(catalogue.RETENTION_BEHIND, late),
            Sample(catalogue.MEASURE_DURATION, time.monotonic() - began),
        ]
        self._measured_at = self._clock()

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                self.measure()
            except Exception as error:  # the thread goes on
                cause = causes.explain(error)
                log.warning(
                    "measurement_waits",
                    reason=cause.reason,
                    cause=cause.sentence,
                    exc_info=None if cause.is_known else error,
                )
            self._pause.wait(pause_s(time.monotonic() - began))


def pause_s(took_s: float) -> float:
    """Return the seconds until the next measurement, after one that took `took_s`."""
    return min(max(_INTERVAL_S, _SHARE * took_s), _LONGEST_PAUSE_S)


def _samples(state: Gauges) -> Iterator[Sample]:
    yield Sample(catalogue.BACKLOG, state.unadmitted)
    yield Sample(catalogue.BACKLOG_AGE, _age(state.unadmitted_since, state.now))
    yield Sample(catalogue.EVENTS, state.events)
    yield Sample(catalogue.UNHANDLED, state.unhandled)
    for lane in state.lanes:
        yield from _of_lane(lane, state.now)
    for parked, count in state.parked.items():
        yield Sample(catalogue.PARKED_JOBS, count, parked)
    yield from _by_label(catalogue.DEAD_LETTERS, state.dead)
    yield from _by_label(catalogue.PROCESSES, state.processes)


def _of_lane(lane: Lane, now: datetime) -> Iterator[Sample]:
    labels = (lane.processor, lane.queue)
    yield Sample(catalogue.WAITING_JOBS, lane.pending, (*labels, "pending"))
    yield Sample(catalogue.WAITING_JOBS, lane.retrying, (*labels, "retrying"))
    yield Sample(catalogue.RUNNING_JOBS, lane.running, labels)
    yield Sample(catalogue.OLDEST_JOB_AGE, _age(lane.oldest_at, now), labels)


def _by_label(metric: Metric, counts: Mapping[str, float]) -> Iterator[Sample]:
    return (Sample(metric, count, (label,)) for label, count in counts.items())


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
