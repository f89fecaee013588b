"""Counts the sweeps of a relay."""

from collections.abc import Callable, Iterator

from ingest.monitoring import catalogue
from ingest.monitoring.samples import Durations, Sample
from workers.relay.sweep import Swept


class SweepCounts:
    """Counts since the start. The relay's loop counts, another thread reads."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        """`clock` returns Unix time in seconds."""
        self._clock = clock
        self._durations = Durations()
        self._failed = self._rescued = self._deliveries = self._jobs = 0
        self._last_at = 0.0

    def succeeded(self, swept: Swept, seconds: float) -> None:
        """Count a sweep that reached its end."""
        self._durations.add(seconds)
        self._rescued += swept.rescued
        self._deliveries += swept.deliveries
        self._jobs += swept.jobs
        self._last_at = self._clock()

    def failed(self) -> None:
        """Count a sweep that PostgreSQL or Redis ended."""
        self._failed += 1

    def read(self) -> Iterator[Sample]:
        """Yield the counts, for Prometheus."""
        durations = self._durations.read()
        yield Sample(catalogue.SWEEPS, sum(durations.counts), ("ok",))
        yield Sample(catalogue.SWEEPS, self._failed, ("failed",))
        yield Sample(catalogue.SWEEP_DURATION, durations)
        yield Sample(catalogue.LAST_SWEEP, self._last_at)
        yield Sample(catalogue.RELAY_DISPATCHED, self._deliveries, ("deliveries",))
        yield Sample(catalogue.RELAY_DISPATCHED, self._jobs, ("jobs",))
        yield Sample(catalogue.RELAY_RESCUED, self._rescued)
