"""Values of metrics, as the parts of a process give them: no client library is needed for that."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ingest.monitoring.catalogue import Metric
from ingest.store.pipeline.histograms import BUCKETS, CELLS, by_bucket, cell

DURATION_BOUNDS_S = tuple(2**number / 1000 for number in range(BUCKETS))
"""The upper bounds of the buckets of durations; the last bucket has none."""
_SIZES = 13


class Distribution(NamedTuple):
    """The counts of a histogram."""

    bounds: Sequence[float]
    counts: Sequence[float]
    """One for each bound, and one for what is above the last."""
    total: float
    """The sum of all values."""


class Sample(NamedTuple):
    """A value of a metric."""

    metric: Metric
    value: float | Distribution
    labels: tuple[str, ...] = ()


Read = Callable[[], Iterable[Sample]]
"""Returns the present values. Called from another thread than the one that counts."""


class Durations:
    """Counts durations by their cell. One thread adds, any thread reads."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * CELLS
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count a duration. A clock that is put back gives one below 0: it counts as 0, since a sum
        that falls is a restart to Prometheus."""
        self.counts[cell(seconds)] += 1
        self.seconds += max(0.0, seconds)

    def read(self) -> Distribution:
        """Return the counts of whole buckets."""
        return Distribution(DURATION_BOUNDS_S, by_bucket(self.counts), self.seconds)


class Sizes:
    """Counts whole numbers from 1 on in buckets that double, likewise."""

    def __init__(self) -> None:
        self._counts = [0] * (_SIZES + 1)
        self._total = 0

    def add(self, size: int) -> None:
        """Count a size."""
        self._counts[min((size - 1).bit_length(), _SIZES)] += 1
        self._total += size

    def read(self) -> Distribution:
        """Return the counts."""
        return Distribution(
            [2**number for number in range(_SIZES)], tuple(self._counts), self._total
        )
