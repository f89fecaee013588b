"""Makes the runs of periodic processors, each once, whatever the number of relays.

A run is made only while a live worker has the processor and takes its queue, and it is not paused.
What falls due otherwise is missed, and the schedule's own rule says what becomes of that.
"""

import os
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from ingest import logs
from ingest.sources.schedule import Run
from ingest.store import causes
from ingest.store.pipeline import schedules as store
from ingest.store.pipeline.schedules import Random, StoredSchedule
from ingest.store.reports import heartbeats
from ingest.store.server_time import server_time
from workers.schedules import BadSchedule, Plan, Schedule, plan

log = logs.logger(__name__)

_BY = "relay"


class Schedules:
    """Looks which processors are due."""

    def __init__(
        self,
        engine: Engine,
        *,
        now: Callable[[Connection], datetime] = server_time,
        random: Random = os.urandom,
    ) -> None:
        """`now` returns the time that counts, which is that of the server."""
        self._engine = engine
        self._now = now
        self._random = random
        self._unusable: set[str] = set()
        self._problems: dict[str, str] = {}
        """Why a processor could not be seen to, as it was told last."""

    def sweep(self) -> int:
        """Make the runs that are due; return how many. What fails for one processor is logged,
        and holds up no other.

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
            self._see_to(stored, now)
            for stored in known
            if (stored.processor, stored.queue) in served
        )

    def _see_to(self, stored: StoredSchedule, now: datetime) -> int:
        """Make the runs of a processor that are due; return how many."""
        try:
            made = self._make_runs(stored.processor) if self._asks_for_work(stored, now) else 0
        except Exception as error:
            if _is_away(error):
                raise
            self._tell(stored.processor, error)
            return 0
        self._problems.pop(stored.processor, None)
        return made

    def _tell(self, processor: str, error: Exception) -> None:
        """Log why no run was made, once until that changes."""
        cause = causes.explain(error)
        if self._problems.get(processor) != cause.reason:
            log.warning(
                "run_not_made",
                processor=processor,
                reason=cause.reason,
                cause=cause.sentence,
                exc_info=None if cause.is_known else error,
            )
        self._problems[processor] = cause.reason

    def _asks_for_work(self, stored: StoredSchedule, now: datetime) -> bool:
        return _may_begin(stored) and self._plan(stored, now) != _nothing(stored)

    def _make_runs(self, processor: str) -> int:
        with self._engine.begin() as connection:
            stored = store.lock(connection, processor)
            if stored is None or not _may_begin(stored) or _has_to_wait(connection, stored):
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


def _is_away(error: Exception) -> bool:
    """Return whether there is no connection, so that it would fail for every processor."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or getattr(error.orig, "sqlstate", None) is None
    return isinstance(error, PoolExhausted)


def _may_begin(stored: StoredSchedule) -> bool:
    return not stored.is_paused and (stored.overlap or not stored.is_unfinished)


def _has_to_wait(connection: Connection, stored: StoredSchedule) -> bool:
    """Return whether a run is unfinished, one that was replayed included: it is not the last."""
    return not stored.overlap and store.has_unfinished_run(connection, stored.processor)


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
