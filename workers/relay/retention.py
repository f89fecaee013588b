"""Removes what has passed its age, in a thread with a connection of its own.

Each step is small and takes milliseconds, and the thread pauses after it, so that traffic does not
notice. Several relays may run it: a step that finds another one at work leaves it to that.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from sqlalchemy import Engine

from ingest import logs
from ingest.monitoring import catalogue
from ingest.monitoring.samples import Sample
from ingest.store import causes
from ingest.store.retention import passes, progress
from ingest.store.retention.ages import Ages

_EVERY_S = 300.0
_PAUSES = 2.0
"""A pause is twice as long as the step before: the thread uses a connection a third of the time."""

log = logs.logger(__name__)


class Retention:
    """Makes a pass every five minutes, until the process stops."""

    def __init__(
        self, engine: Engine, ages: Ages, *, stop: threading.Event, clock: Callable[[], float]
    ) -> None:
        """`clock` returns Unix time in seconds."""
        self._engine = engine
        self._ages = ages
        self._stop = stop
        self._clock = clock
        self._removed = dict.fromkeys(progress.KINDS, 0)
        self._ended_at = 0.0
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        """Start, unless everything is kept for ever."""
        if not self._ages.are_all_unset:
            self._thread.start()

    def read(self) -> Iterator[Sample]:
        """Yield the counts since the start, for Prometheus."""
        for kind, rows in self._removed.items():
            yield Sample(catalogue.RETENTION_REMOVED, rows, (kind,))
        yield Sample(catalogue.RETENTION_ENDED, self._ended_at)

    def run_once(self) -> None:
        """Make one pass; stop after any step once the process stops.

        Raises:
            SQLAlchemyError: PostgreSQL is away or refuses.
            Unfinished: an event got a job while it was being removed, and was not removed.
        """
        removed: Counter[str] = Counter()
        began = time.monotonic()
        steps = passes.run(
            self._engine, self._ages, clock=lambda: datetime.now(UTC), pause=self._stop.wait
        )
        for kind, rows in steps:
            removed[kind] += rows
            self._removed[kind] += rows
            if self._stop.wait(_PAUSES * (time.monotonic() - began)):
                return
            began = time.monotonic()
        self._ended_at = self._clock()
        if removed.total():
            log.info("retention", **{kind: rows for kind, rows in removed.items() if rows})

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.run_once()
            except Exception as error:  # the thread goes on
                cause = causes.explain(error)
                log.warning(
                    "retention_waits",
                    reason=cause.reason,
                    cause=cause.sentence,
                    again_in_s=_EVERY_S,
                    exc_info=None if cause.is_known else error,
                )
            self._stop.wait(_EVERY_S)
