"""Keeps the database tidy: once a day its partitions, once a minute its counts."""

import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import partial

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ingest import logs
from ingest.settings import Settings
from ingest.store import causes, keyed_requests, partitions
from ingest.store.pipeline import activity_sums, metrics
from ingest.store.pipeline.compaction import Compaction
from ingest.store.reports import heartbeats, refusal_counts
from ingest.store.server_time import server_time

_RETRY_AFTER_S = 60.0
_DEAD_PROCESSES_KEPT = timedelta(minutes=10)

log = logs.logger(__name__)


class DailyMaintenance:
    """Makes and drops partitions once a day. This can wait, because partitions are made days ahead;
    the sweeps cannot."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._done: date | None = None
        self._not_before = 0.0
        self._stray_days: list[date] = []
        """Of which bodies in the default partition are to be removed, some at each sweep."""

    def run_if_due(self, today: date, *, now: float) -> None:
        """Do the day's work if it is not done yet, or a part of it. `today` is the date in UTC,
        `now` is monotonic, in seconds."""
        if (today == self._done and not self._stray_days) or now < self._not_before:
            return
        try:
            if today != self._done:
                self.run(today)
                self._done = today
            else:
                self._drop_some_strays()
        except SQLAlchemyError as error:
            _log_waiting(error)
            self._not_before = now + _RETRY_AFTER_S

    def run(self, today: date) -> None:
        """Make the partitions of the coming days, and drop those whose retention has ended.

        Raises:
            SQLAlchemyError: somebody is reading deliveries, or PostgreSQL is away.
        """
        days_ahead = self._settings.partition_days_ahead
        partitions.show_absent(self._engine, today=today, days_ahead=days_ahead)
        with self._engine.begin() as connection:
            made = partitions.ensure(connection, today=today, days_ahead=days_ahead)
        if made:
            log.info("partitions_made", first=str(made[0]), last=str(made[-1]))
        if self._settings.body_retention_days is not None:
            self._drop_before(today - timedelta(days=self._settings.body_retention_days))

    def _drop_before(self, first_kept: date) -> None:
        with self._engine.begin() as connection:
            old_days = [day for day in partitions.days(connection) if day < first_kept]
            stray_days = partitions.stray_days(connection, before=first_kept)
        for day in old_days:
            with self._engine.begin() as connection:
                unfinished = partitions.drop(connection, day)
            if unfinished is None:
                log.info("bodies_dropped", day=str(day))
            else:
                log.warning("bodies_kept", day=str(day), unfinished=unfinished)
        self._stray_days = stray_days

    def _drop_some_strays(self) -> None:
        day = self._stray_days[0]
        with self._engine.begin() as connection:
            removed, unfinished = partitions.drop_strays(connection, day)
        if unfinished:
            log.warning("bodies_kept", day=str(day), unfinished=unfinished)
        elif removed == partitions.STRAYS_AT_ONCE:
            return  # there may be more
        else:
            log.info("bodies_dropped", day=str(day))
        self._stray_days.pop(0)


class MinuteTasks:
    """Merges past counts and sums them up, removes dead processes and forgets old requests, once a
    minute."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._not_before = 0.0
        self._compaction = Compaction(
            keep_minutes=metrics.MINUTES_KEPT,
            keep_quarters=metrics.QUARTERS_KEPT,
            clock=time.monotonic,
        )

    def run_if_due(self, *, now: float) -> None:
        """Do the minute's work if it is time. `now` is monotonic, in seconds.

        Raises:
            SQLAlchemyError: PostgreSQL is away.
        """
        if now >= self._not_before:
            self._not_before = now + 60
            with self._engine.connect() as connection:
                server_now = server_time(connection)
            self.run(server_now)

    def run(self, now: datetime) -> None:
        """Merge the counts of past minutes, sum them up, and remove what is gone: processes, and
        the requests whose keys are no longer kept. A task that fails is logged, and does not keep
        the others from their work. `now` is by the server's clock, which counted the minutes."""
        tasks: tuple[Callable[[], object], ...] = (
            partial(self._compaction.run, self._engine, now=now),
            partial(
                self._in_transaction,
                activity_sums.make,
                metrics.SUMMED,
                now=now,
                keep_quarters=metrics.QUARTERS_KEPT,
            ),
            partial(
                self._in_transaction,
                refusal_counts.compact,
                now=now,
                keep_minutes=metrics.MINUTES_KEPT,
                keep_quarters=metrics.QUARTERS_KEPT,
            ),
            partial(self._in_transaction, heartbeats.prune, older_than=_DEAD_PROCESSES_KEPT),
            partial(self._in_transaction, keyed_requests.forget),
        )
        for task in tasks:
            try:
                task()
            except SQLAlchemyError as error:
                _log_waiting(error)

    def _in_transaction(
        self, task: Callable[..., object], *args: object, **options: object
    ) -> None:
        with self._engine.begin() as connection:
            task(connection, *args, **options)


def _log_waiting(error: SQLAlchemyError) -> None:
    cause = causes.explain(error)
    log.warning(
        "upkeep_waits", reason=cause.reason, cause=cause.sentence, again_in_s=_RETRY_AFTER_S
    )
