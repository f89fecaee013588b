"""The relay: finds work that nobody holds, in PostgreSQL, and dispatches it.

Three kinds: deliveries never admitted, jobs whose time has come, jobs whose lease has ended.
Several relays may run; rows that one marks, another skips. With Redis away, leases still end."""

import dataclasses
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ingest import queues, telemetry
from ingest.dispatch import IDS_PER_MESSAGE, Dispatcher
from ingest.errors import DispatchFailed
from ingest.presence import Presence, identity
from ingest.settings import Settings
from ingest.store import activity, causes, events, jobs, partitions, processes, processors
from ingest.store.database import Role, create_engine
from workers import heartbeat, rescue
from workers.backoff import Rules
from workers.parking import Parking

Id = TypeVar("Id")

log = telemetry.logger(__name__)

_UPKEEP_AGAIN_S = 60.0
_SET_ASIDE_LIMIT = 10_000
"""Jobs of paused processors that one sweep puts aside or takes up; a few hundred milliseconds."""
_MINUTES_KEPT, _QUARTERS_KEPT = timedelta(hours=2), timedelta(hours=26)
"""So long activity is kept by the minute, for an hour's chart, and by the quarter of an hour, for a
day's."""
_DEAD_PROCESSES_KEPT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one sweep did."""

    rescued: int
    deliveries: int
    jobs: int


class Relay:
    """Sweeps once a second or so."""

    def __init__(self, engine: Engine, dispatcher: Dispatcher, settings: Settings) -> None:
        self._engine = engine
        self._dispatcher = dispatcher
        self._settings = settings
        self._rules = Rules(base_s=settings.retry_base_s, cap_s=settings.retry_cap_s)
        self._parking = Parking(engine, clock=time.monotonic)

    def sweep(self) -> Swept:
        """Look for work once.

        Raises:
            DispatchFailed: Redis takes no hints; what was found is found again.
            SQLAlchemyError: PostgreSQL is away.
        """
        rescued = rescue.after_leases(
            self._engine, self._rules, limit=self._settings.relay_batch, random=random.uniform
        )
        try:
            self._set_aside()
            self._parking.sweep()
        except SQLAlchemyError as error:  # it can wait; the rest cannot
            cause = causes.explain(error, self._settings.database)
            log.warning("set_aside_waits", reason=cause.reason, cause=cause.sentence)
        return Swept(rescued=rescued, deliveries=self._deliveries(), jobs=self._jobs())

    def tidy(self, now: datetime) -> None:
        """What is to be done every minute: merge past activity, forget processes that are gone."""
        with self._engine.begin() as connection:
            activity.compact(
                connection, now=now, keep_minutes=_MINUTES_KEPT, keep_quarters=_QUARTERS_KEPT
            )
            processes.forget(connection, older_than=_DEAD_PROCESSES_KEPT)

    def maintain(self, today: date) -> None:
        """Make the partitions of the coming days, and drop those that nobody keeps.

        Raises:
            SQLAlchemyError: somebody reads deliveries just now, or PostgreSQL is away.
        """
        with self._engine.begin() as connection:
            made = partitions.ensure(
                connection, today=today, days_ahead=self._settings.partition_days_ahead
            )
        if made:
            log.info("partitions_made", first=str(made[0]), last=str(made[-1]))
        if self._settings.keep_bodies_days is not None:
            self._drop_before(today - timedelta(days=self._settings.keep_bodies_days))

    def _drop_before(self, first_kept: date) -> None:
        with self._engine.begin() as connection:
            old = [day for day in partitions.days(connection) if day < first_kept]
        for day in old:
            with self._engine.begin() as connection:
                unfinished = partitions.drop(connection, day)
            if unfinished is None:
                log.info("bodies_dropped", day=str(day))
            else:
                log.warning("bodies_kept", day=str(day), unfinished=unfinished)

    def _set_aside(self) -> None:
        """Jobs of paused processors out of the way, and those of resumed ones back."""
        with self._engine.begin() as connection:
            paused, resumed = processors.set_aside(connection)
            if not paused and not resumed:
                return
            taken_up = 0
            for queue in jobs.queues(connection):
                if paused:
                    jobs.park(connection, queue, paused, limit=_SET_ASIDE_LIMIT)
                if resumed:
                    taken_up += jobs.unpark(connection, queue, resumed, limit=_SET_ASIDE_LIMIT)
            if resumed and not taken_up:
                processors.settle(connection, resumed)

    def _deliveries(self) -> int:
        """Hint what was never admitted."""
        with self._engine.begin() as connection:
            waiting = events.queues(connection)
        return sum(self._hint_deliveries(queue) for queue in waiting if self._has_room(queue))

    def _hint_deliveries(self, queue: str) -> int:
        with self._engine.begin() as connection:
            found = events.hint_overdue(connection, queue, **self._bounds)
        for ids in _messages(found):
            try:
                self._dispatcher.dispatch(queues.overdue(queue), deliveries=ids)
            except DispatchFailed:
                with self._engine.begin() as connection:
                    events.unhint(connection, found)
                raise
        return len(found)

    def _jobs(self) -> int:
        """Hint what is due."""
        with self._engine.begin() as connection:
            waiting = jobs.queues(connection)
        return sum(self._hint_jobs(queue) for queue in waiting if self._has_room(queue))

    def _hint_jobs(self, queue: str) -> int:
        with self._engine.begin() as connection:
            found = jobs.hint_due(
                connection, queue, **self._bounds, unserved=self._parking.unserved(queue)
            )
        for ids in _messages(found):
            try:
                self._dispatcher.dispatch(queues.overdue(queue), jobs=ids)
            except DispatchFailed:
                with self._engine.begin() as connection:
                    jobs.unhint(connection, found)
                raise
        return len(found)

    @property
    def _bounds(self) -> dict[str, Any]:
        return {"limit": self._settings.relay_batch, "ttl_s": self._settings.hint_ttl_s}

    def _has_room(self, queue: str) -> bool:
        """Whether workers keep up with what was dispatched before; if not, more helps nobody."""
        return self._dispatcher.backlog(queues.overdue(queue)) < self._settings.relay_queue_limit


def run(settings: Settings, stop: threading.Event, *, today: Callable[[], date]) -> None:
    """Sweep until `stop` is set. Outlives PostgreSQL and Redis being away.

    Args:
        settings: of this process.
        stop: set from a signal handler.
        today: the date in UTC.

    Raises:
        SettingsError: an address is missing.
    """
    engine = create_engine(settings.database, role=Role.RELAY)
    relay = Relay(engine, Dispatcher(settings.redis), settings)
    log.info("relay_started", interval_s=settings.relay_interval_s)
    upkeep, minutely = Upkeep(relay), Minutely(relay)
    presence = Presence(settings.database, identity("relay", random=os.urandom))
    presence.start()
    problem: str | None = None
    while not stop.is_set():
        try:
            swept = relay.sweep()
            upkeep.attend(today(), now=time.monotonic())
            minutely.attend(now=time.monotonic())
        except (DispatchFailed, SQLAlchemyError) as error:
            cause = causes.explain(error, settings.database)
            if cause.reason != problem:
                log.warning(
                    "relay_waits",
                    reason=cause.reason,
                    cause=cause.sentence,
                    exc_info=None if cause.is_known else error,
                )
            problem = cause.reason
        else:
            if problem is not None:
                log.info("relay_goes_on")
            problem = None
            if swept.rescued or swept.deliveries or swept.jobs:
                log.info("swept", **dataclasses.asdict(swept))
        heartbeat.beat(settings.heartbeat_file)
        stop.wait(settings.relay_interval_s)
    presence.leave()
    engine.dispose()


class Upkeep:
    """Maintenance once a day. It can wait, partitions being made days ahead; the sweeps cannot."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._done: date | None = None
        self._not_before = 0.0

    def attend(self, today: date, *, now: float) -> None:
        """Do what is to be done today, if it is time; `now` is monotonic, in seconds."""
        if today == self._done or now < self._not_before:
            return
        try:
            self._relay.maintain(today)
            self._done = today
        except SQLAlchemyError as error:
            cause = causes.explain(error)
            log.warning(
                "upkeep_waits",
                reason=cause.reason,
                cause=cause.sentence,
                again_in_s=_UPKEEP_AGAIN_S,
            )
            self._not_before = now + _UPKEEP_AGAIN_S


class Minutely:
    """What is to be done once a minute."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._not_before = 0.0

    def attend(self, *, now: float) -> None:
        """Do it, if it is time; `now` is monotonic, in seconds."""
        if now >= self._not_before:
            self._not_before = now + 60
            self._relay.tidy(datetime.now(UTC))


def _messages(ids: Sequence[Id]) -> Iterator[Sequence[Id]]:
    return (ids[start : start + IDS_PER_MESSAGE] for start in range(0, len(ids), IDS_PER_MESSAGE))
