"""Makes the runs of periodic processors, each once, whatever the number of relays.

A run is made only while a live worker has the processor and takes its queue, and it is not paused.
What falls due otherwise is missed, and the schedule's own rule says what becomes of that.
"""

import os
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, Engine

from ingest import logs
from ingest.sources.schedule import Run
from ingest.store.pipeline import schedules as store
from ingest.store.pipeline.schedules import Random, StoredSchedule
from ingest.store.reports import heartbeats
from workers.schedules import BadSchedule, Plan, Schedule, plan

log = logs.logger(__name__)

_BY = "relay"


class Schedules:
    """Looks which processors are due."""

    def __init__(
        self,
        engine: Engine,
        *,
        now: Callable[[Connection], datetime] = store.server_time,
        random: Random = os.urandom,
    ) -> None:
        """`now` returns the time that counts, which is that of the server."""
        self._engine = engine
        self._now = now
        self._random = random
        self._unusable: set[str] = set()

    def sweep(self) -> int:
        """Make the runs that are due; return how many.

        Raises:
            SQLAlchemyError: PostgreSQL is away.
        """
        with self._engine.begin() as connection:
            known = store.all_of_them(connection)
            if not known:
                return 0
            served = heartbeats.served(connection) or frozenset()
            now = self._now(connection)
        return sum(
            self._make_runs(stored.processor)
            for stored in known
            if (stored.processor, stored.queue) in served and self._asks_for_work(stored, now)
        )

    def _asks_for_work(self, stored: StoredSchedule, now: datetime) -> bool:
        return _may_begin(stored) and self._plan(stored, now) != _nothing(stored)

    def _make_runs(self, processor: str) -> int:
        with self._engine.begin() as connection:
            stored = store.lock(connection, processor)
            if stored is None or not _may_begin(stored):
                return 0
            planned = self._plan(stored, self._now(connection))
            made = [
                run
                for run in _runs(stored, planned)
                if store.store_run(connection, stored, run, by=_BY, random=self._random)
            ]
            store.advance(
                connection,
                processor,
                next_due_at=planned.next_due_at,
                skipped=planned.skipped,
            )
        for run in made:
            log.info(
                "run_made", processor=processor, due_at=run.due_at.isoformat(), missed=run.missed
            )
        return len(made)

    def _plan(self, stored: StoredSchedule, now: datetime) -> Plan:
        try:
            planned = plan(
                _schedule(stored), next_due_at=stored.next_due_at, skipped=stored.skipped, now=now
            )
        except BadSchedule as error:  # the zone is known where the worker runs, and not here
            if stored.processor not in self._unusable:
                log.warning("schedule_unusable", processor=stored.processor, cause=str(error))
            self._unusable.add(stored.processor)
            return _nothing(stored)
        self._unusable.discard(stored.processor)
        return planned


def _may_begin(stored: StoredSchedule) -> bool:
    return not stored.is_paused and (stored.overlap or not stored.is_unfinished)


def _nothing(stored: StoredSchedule) -> Plan:
    return Plan(runs=(), next_due_at=stored.next_due_at, skipped=stored.skipped)


def _schedule(stored: StoredSchedule) -> Schedule:
    return Schedule(
        expression=stored.expression,
        zone=stored.zone,
        missed=stored.missed,
        overlap=stored.overlap,
    )


def _runs(stored: StoredSchedule, planned: Plan) -> list[Run]:
    """Return the planned runs; each names the one before it."""
    previous = stored.last_due_at
    runs = []
    for due_at, missed in planned.runs:
        runs.append(
            Run(
                processor=stored.processor,
                due_at=due_at,
                previous_due_at=previous,
                missed=missed,
            )
        )
        previous = due_at
    return runs
