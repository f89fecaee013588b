"""The counts of a worker: its processes add to a memory that they share, and one reads it.

Why not the client library's way for several processes: it keeps a file for each process that ever
lived, in a folder that somebody has to empty, it has to be chosen by an environment variable before
the first import, and its increments cost a lock and a search by name. Here the parent makes the
memory before it forks, so the names and the size are known, and nothing is left behind.

Each process adds to a row of its own, so none waits for another. It holds its row by a lock on a
byte of an empty file, which the kernel releases when the process ends, however it ends. Whoever
takes the row next goes on counting where the last one stopped, so no counter ever falls.
"""

import ctypes
import fcntl
import mmap
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence

from ingest import logs
from ingest.monitoring import catalogue
from ingest.monitoring.catalogue import Metric
from ingest.monitoring.samples import DURATION_BOUNDS_S, Distribution, Sample
from ingest.store.pipeline import histograms
from ingest.store.pipeline.histograms import BUCKETS, Counted
from ingest.store.pipeline.jobs import Failure, Outcome

_Row = ctypes.Array[ctypes.c_double]
_CELL_BYTES = ctypes.sizeof(ctypes.c_double)
_TOTAL = BUCKETS + 1
"""The place of a distribution's sum, after its counts."""
_DISTRIBUTION_CELLS = BUCKETS + 2
_TOTALS: tuple[Metric, ...] = (
    *(catalogue.DUPLICATES, catalogue.CONFLICTS, catalogue.TASKS, catalogue.TASK_FAILURES),
    *(catalogue.DISPATCHES, catalogue.DISPATCH_FAILURES, catalogue.CRASHED_JOBS),
)
_OUTCOMES = tuple(outcome for outcome in Outcome if outcome is not Outcome.LOST)
"""That one is told by others than the process that ran the job."""
_DISTRIBUTIONS = (catalogue.ATTEMPT_DURATION, catalogue.LAG)

log = logs.logger(__name__)


class _Layout:
    """Where each value is in a row."""

    def __init__(self, processors: Sequence[str]) -> None:
        self.totals = {metric: place for place, metric in enumerate(_TOTALS)}
        self.outcomes: dict[tuple[str, Outcome], int] = {}
        self.dead: dict[str, int] = {}
        self.distributions: dict[tuple[Metric, str], int] = {}
        place = len(_TOTALS)
        for processor in processors:
            for outcome in _OUTCOMES:
                self.outcomes[processor, outcome] = place
                place += 1
            self.dead[processor] = place
            place += 1
            for metric in _DISTRIBUTIONS:
                self.distributions[metric, processor] = place
                place += _DISTRIBUTION_CELLS
        self.cells = place


class Tally:
    """What one process adds. From any of its threads."""

    def __init__(self, layout: _Layout, row: _Row) -> None:
        self._layout = layout
        self._row = row
        self._lock = threading.Lock()

    def add(self, metric: Metric, count: int = 1) -> None:
        """Add to a total that has no label."""
        with self._lock:
            self._row[self._layout.totals[metric]] += count

    def succeeded(self, processor: str, took: Counted, lags: Counted) -> None:
        """Count attempts that succeeded.

        Args:
            processor: a registered one.
            took: of each, the time of the processor's call.
            lags: of each that is no replay, the time since the delivery's receipt.
        """
        with self._lock:
            succeeded = sum(took.cells.values())
            self._row[self._layout.outcomes[processor, Outcome.SUCCEEDED]] += succeeded
            self._observe(catalogue.ATTEMPT_DURATION, processor, took)
            self._observe(catalogue.LAG, processor, lags)

    def failed(self, processor: str, failure: Failure) -> None:
        """Count an attempt that did not succeed, and its job if that is dead now."""
        with self._lock:
            self._row[self._layout.outcomes[processor, failure.outcome]] += 1
            if failure.retry_in_s is None:
                self._row[self._layout.dead[processor]] += 1

    def _observe(self, metric: Metric, processor: str, durations: Counted) -> None:
        first = self._layout.distributions[metric, processor]
        for cell, count in durations.cells.items():
            self._row[first + histograms.place(cell).bucket] += count
        self._row[first + _TOTAL] += max(0.0, durations.total_s)  # two machines' clocks may differ


def unshared(processors: Sequence[str]) -> Tally:
    """Return a tally that nobody reads."""
    return _unshared(_Layout(processors))


def _unshared(layout: _Layout) -> Tally:
    return Tally(layout, (ctypes.c_double * layout.cells)())


class WorkerCounts:
    """The memory that a worker's processes share."""

    def __init__(self, processors: Sequence[str], *, processes: int) -> None:
        """Make the memory, before any fork.

        Args:
            processors: the names of the registered ones.
            processes: how many may add at once.
        """
        self._layout = _Layout(processors)
        memory = mmap.mmap(-1, self._layout.cells * _CELL_BYTES * processes)
        row_type = ctypes.c_double * self._layout.cells
        self._rows: list[_Row] = [
            row_type.from_buffer(memory, number * ctypes.sizeof(row_type))
            for number in range(processes)
        ]
        with tempfile.TemporaryFile() as empty:
            self._lock_fd = os.dup(empty.fileno())  # open as long as the process

    def take(self) -> Tally:
        """Take a row that no living process has. Where all are taken, what is counted is not
        told."""
        for number, row in enumerate(self._rows):
            try:
                fcntl.lockf(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except OSError:
                continue
            return Tally(self._layout, row)
        log.warning("process_not_counted", rows=len(self._rows))
        return _unshared(self._layout)

    def read(self) -> Iterator[Sample]:
        """Yield the sums over all processes, for Prometheus."""
        sums = [sum(values) for values in zip(*(row[:] for row in self._rows), strict=True)]
        for metric, place in self._layout.totals.items():
            yield Sample(metric, sums[place])
        for (processor, outcome), place in self._layout.outcomes.items():
            yield Sample(catalogue.ATTEMPTS, sums[place], (processor, outcome.value))
        for processor, place in self._layout.dead.items():
            yield Sample(catalogue.JOBS_DEAD, sums[place], (processor,))
        for (metric, processor), place in self._layout.distributions.items():
            counts = sums[place : place + _TOTAL]
            if any(counts):
                distribution = Distribution(DURATION_BOUNDS_S, counts, sums[place + _TOTAL])
                yield Sample(metric, distribution, (processor,))
