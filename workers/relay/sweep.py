"""Finds the work that nobody holds, and dispatches it.

There are three kinds: deliveries that were never admitted, jobs whose time has come, and jobs whose
lease has ended. Several relays may sweep at once: a row that one of them marks is skipped by the
others. Leases end even while Redis is away.
"""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ingest import logs, queues
from ingest.dispatch import IDS_PER_MESSAGE, Dispatcher
from ingest.errors import DispatchFailed
from ingest.sentry.start import Reports
from ingest.settings import Settings
from ingest.store import causes
from ingest.store.pipeline import admission, jobs, processors, relay_work
from workers.recovery import rescue
from workers.relay.limits import LimitWaking
from workers.relay.mending import OrderMending
from workers.relay.parking import Parking
from workers.relay.probing import Probing
from workers.relay.schedules import Schedules
from workers.retry import RetryPolicy

Id = TypeVar("Id")

_PAUSED_JOBS_LIMIT = 10_000
"""Jobs of paused and resumed processors that one sweep parks or unparks in each queue. That takes a
few hundred milliseconds."""

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """Counts what one sweep found."""

    rescued: int
    """Jobs whose lease had ended."""
    deliveries: int
    jobs: int


class Relay:
    """Looks for work that nobody holds."""

    def __init__(
        self,
        engine: Engine,
        dispatcher: Dispatcher,
        settings: Settings,
        *,
        parking: Parking | None = None,
        schedules: Schedules | None = None,
        reports: Reports | None = None,
    ) -> None:
        """Look through `engine` and dispatch by `dispatcher`; `parking` parks what nobody takes, by
        the process's own clock unless it is given; `schedules` makes the runs of periodic
        processors; `reports` tells of dead letters."""
        self._engine = engine
        self._dispatcher = dispatcher
        self._settings = settings
        self._rules = RetryPolicy(base_s=settings.retry_base_s, cap_s=settings.retry_max_delay_s)
        self._reports = reports or Reports()
        self._parking = parking or Parking(engine, clock=time.monotonic)
        self._mending = OrderMending(engine)
        self._probing = Probing(engine, dispatcher, ttl_s=settings.redispatch_after_s)
        self._schedules = schedules or Schedules(engine)
        self._limits = LimitWaking(engine, dispatcher, clock=time.monotonic)
        self.look_at: float | None = None
        """When a rate may allow the next start, by `time.monotonic`; None: the next sweep is soon
        enough."""

    def sweep(self) -> Swept:
        """Look for work once: by one statement if there is none, and step by step if there is.

        Raises:
            DispatchFailed: Redis takes no messages. The next sweep finds the same work again.
            SQLAlchemyError: PostgreSQL is away.
        """
        self.look_at = None
        if self._has_work():
            return self._sweep()
        self._parking.begin_anew()
        return Swept(rescued=0, deliveries=0, jobs=0)

    def _has_work(self) -> bool:
        """Return whether there is work, or it cannot be told: a lock on one of the tables must not
        keep what is in the others from being dispatched."""
        try:
            with self._engine.begin() as connection:
                return relay_work.is_there(connection)
        except SQLAlchemyError:
            return True

    def _sweep(self) -> Swept:
        rescued = rescue.recover_expired(
            self._engine,
            self._rules,
            limit=self._settings.relay_batch,
            random=random.uniform,
            reports=self._reports,
        )
        try:
            self.park_paused()
            self._parking.sweep()
            self._mending.sweep()
            self._probing.sweep()
            self._limits.dissolve()
        except SQLAlchemyError as error:  # parking can wait, dispatching cannot
            cause = causes.explain(error, self._settings.database)
            log.warning("parking_waits", reason=cause.reason, cause=cause.sentence)
        try:
            self._schedules.sweep()
        except SQLAlchemyError as error:  # a run that is late is made later
            cause = causes.explain(error, self._settings.database)
            log.warning("schedules_wait", reason=cause.reason, cause=cause.sentence)
        swept = Swept(
            rescued=rescued,
            deliveries=self._dispatch_deliveries(),
            jobs=self._dispatch_jobs(),
        )
        self.wake_limited()
        return swept

    def wake_limited(self) -> None:
        """Wake workers for jobs that waited for a limit, and set `look_at`.

        Raises:
            DispatchFailed: Redis takes no messages.
            SQLAlchemyError: PostgreSQL is away.
        """
        self.look_at = None
        look_in_s = self._limits.sweep()
        if look_in_s is not None:
            self.look_at = time.monotonic() + look_in_s

    def park_paused(self) -> None:
        """Park the jobs of processors that are paused or whose breaker is open, and unpark those of
        the others.

        Raises:
            SQLAlchemyError: PostgreSQL is away.
        """
        with self._engine.begin() as connection:
            paused, resumed = processors.pause_changes(connection)
            if not paused and not resumed:
                return
            unparked = 0
            for queue in jobs.queues(connection):
                if paused:
                    jobs.park(connection, queue, paused, limit=_PAUSED_JOBS_LIMIT)
                if resumed:
                    unparked += jobs.unpark(connection, queue, resumed, limit=_PAUSED_JOBS_LIMIT)
            if resumed and not unparked:
                processors.mark_unparked(connection, resumed)

    def _dispatch_deliveries(self) -> int:
        """Dispatch the deliveries that were never admitted; return how many."""
        with self._engine.begin() as connection:
            waiting = admission.queues(connection)
        return sum(
            self._dispatch_deliveries_of(queue) for queue in waiting if self._has_room(queue)
        )

    def _dispatch_deliveries_of(self, queue: str) -> int:
        with self._engine.begin() as connection:
            ids = admission.dispatch_overdue(connection, queue, **self._bounds)
        for message_ids in _messages(ids):
            try:
                self._dispatcher.dispatch(queues.overdue(queue), deliveries=message_ids)
            except DispatchFailed:
                with self._engine.begin() as connection:
                    admission.undo_dispatch(connection, ids)
                raise
        return len(ids)

    def _dispatch_jobs(self) -> int:
        """Dispatch the jobs that are due; return how many."""
        with self._engine.begin() as connection:
            waiting = filter(self._has_room, jobs.queues(connection))
        return sum(map(self._dispatch_jobs_of, waiting))

    def _dispatch_jobs_of(self, queue: str) -> int:
        unserved = self._parking.unserved(queue)
        with self._engine.begin() as connection:
            ids = jobs.dispatch_due(connection, queue, **self._bounds, unserved=unserved)
        for message_ids in _messages(ids):
            try:
                self._dispatcher.dispatch(queues.overdue(queue), jobs=message_ids)
            except DispatchFailed:
                with self._engine.begin() as connection:
                    jobs.undo_dispatch(connection, ids)
                raise
        return len(ids)

    @property
    def _bounds(self) -> dict[str, Any]:
        return {"limit": self._settings.relay_batch, "ttl_s": self._settings.redispatch_after_s}

    def _has_room(self, queue: str) -> bool:
        """Return whether workers keep up with what was dispatched before. If they do not, more
        messages help nobody."""
        return self._dispatcher.backlog(queues.overdue(queue)) < self._settings.relay_queue_limit


def _messages(ids: Sequence[Id]) -> Iterator[Sequence[Id]]:
    return (ids[start : start + IDS_PER_MESSAGE] for start in range(0, len(ids), IDS_PER_MESSAGE))
