"""Probing the targets of processors whose breaker is open: one job of each at a time may run.

A probe that is lost, because its worker was killed, is not waited for: the next one is another job.
One that only waits for a busy worker is.
"""

from sqlalchemy import Engine

from ingest import logs, queues
from ingest.dispatch import Dispatcher
from ingest.errors import DispatchFailed
from ingest.store.pipeline import breakers, jobs
from ingest.store.pipeline.jobs import Probe

EXAMINED = 1_000
"""Parked jobs of which the one with the fewest failures is chosen. It takes a few milliseconds."""

log = logs.logger(__name__)


class Probing:
    """Chooses and dispatches probes."""

    def __init__(self, engine: Engine, dispatcher: Dispatcher, *, ttl_s: float) -> None:
        """Look through `engine`. Redis is presumed to know a probe for `ttl_s` seconds."""
        self._engine = engine
        self._dispatcher = dispatcher
        self._ttl_s = ttl_s

    def sweep(self) -> None:
        """Look once.

        Raises:
            DispatchFailed: Redis takes no messages. The relay dispatches the probe once it does.
            SQLAlchemyError: PostgreSQL is away.
        """
        for probe in self._choose():
            try:
                self._dispatcher.dispatch(queues.overdue(probe.queue), jobs=[probe.id])
            except DispatchFailed:
                with self._engine.begin() as connection:
                    jobs.undo_dispatch(connection, [probe.id])
                raise

    def _choose(self) -> list[Probe]:
        chosen = []
        with self._engine.begin() as connection:
            for due in breakers.due(connection):
                if due.probe and jobs.is_under_way(connection, due.probe):
                    continue
                probe = jobs.choose_probe(
                    connection, due.processor, examined=EXAMINED, ttl_s=self._ttl_s
                )
                if probe is None:
                    continue
                breakers.choose(connection, due.processor, (probe.id, probe.attempt))
                log.info("breaker_probes", processor=due.processor, job=probe.id)
                chosen.append(probe)
        return chosen
