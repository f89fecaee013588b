"""Counts how long requests wait for a connection to PostgreSQL."""

import threading
from collections.abc import Iterator

from ingest.monitoring import catalogue
from ingest.monitoring.samples import Durations, Sample


class PoolWaits:
    """Counts since the start, from any thread."""

    def __init__(self) -> None:
        self._durations = Durations()
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """Count a wait."""
        with self._lock:
            self._durations.add(seconds)

    def read(self) -> Iterator[Sample]:
        """Yield the counts, for Prometheus."""
        yield Sample(catalogue.POOL_WAIT, self._durations.read())
