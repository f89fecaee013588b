"""Replay: an operator's re-run of jobs, of events that lack one, and of rejected deliveries.

A discard runs in the same way: over a whole selection, a batch a transaction. So it can be paused,
cancelled, and continued after a restart. What a selection means is in `selected`, which jobs come
next in `next_jobs`, the record and status of an operation in `operations`, what has become of its
jobs in `work`, pausing and cancelling in `changes`, rejected deliveries in `reopening`; their
functions are offered here too.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from ingest import queues
from ingest.store.bulk.changes import (
    CANCELLED,
    change,
    change_status,
    forget_events,
    forget_jobs,
    take_back,
    take_back_all,
)
from ingest.store.bulk.next_jobs import Search
from ingest.store.bulk.operations import (
    Operation,
    begin,
    check,
    fail,
    numbered,
    operation,
    operations,
    running_in_background,
    taking_back,
)
from ingest.store.bulk.reopening import Reopened, became, reopen, reopen_all
from ingest.store.bulk.selected import (
    DISCARD,
    HAS_BODY,
    REPLAY,
    Counts,
    by_processor,
    count,
    includes_events,
    job_parameters,
    lacks_job,
)
from ingest.store.bulk.work import Work
from ingest.store.pipeline import jobs
from ingest.store.repeated import until_free
from ingest.store.retention import turns
from ingest.store.search.filters import EventFilter, where
from ingest.store.sql import statement

__all__ = [
    "DISCARD",
    "REPLAY",
    "Counts",
    "Operation",
    "Progress",
    "Reopened",
    "Work",
    "advance",
    "became",
    "begin",
    "by_processor",
    "cancel",
    "change",
    "change_status",
    "check",
    "count",
    "drive",
    "fail",
    "numbered",
    "operation",
    "operations",
    "reopen",
    "reopen_all",
    "run",
    "running_in_background",
    "take_back",
    "take_back_all",
    "taking_back",
]

BATCH = 500
_AHEAD_S = 30.0
"""How far an operation in the background requeues ahead of its rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of an operation."""

    counts: Counts
    """What it has touched so far."""
    waits: bool = False
    """Whether it is ahead of its rate and has to be advanced later."""
    has_ended: bool = False
    """Whether nothing is left to do: it has finished, or was paused or cancelled."""


def run(
    engine: Engine,
    selection: EventFilter,
    *,
    requested_by: str,
    reason: str | None,
    rate: float | None,
) -> Iterator[Counts]:
    """Replay a selection batch by batch; yield the counts so far.

    The jobs go through the replay queue, so that live jobs do not wait behind them. With `rate`
    they fall due at that many a second. Who asked, when and why is kept with every attempt. An
    iteration that stops before the end cancels the replay.
    """
    with engine.begin() as connection:
        identity = begin(connection, selection, requested_by=requested_by, reason=reason, rate=rate)
    yield from drive(engine, identity)


def drive(engine: Engine, operation: int) -> Iterator[Counts]:
    """Advance an operation until it has requeued everything, or is paused or cancelled elsewhere.

    Yield the counts so far, batch by batch. An iteration that stops before the end cancels it, and
    takes back what has not begun.

    Raises:
        SQLAlchemyError: PostgreSQL is away, or a statement took too long. The operation has failed,
            and can be resumed.
        Exception: there is a bug. The operation has failed, and blocks nothing.
    """
    try:
        while not (progress := advance(engine, operation)).has_ended:
            yield progress.counts
    except (GeneratorExit, KeyboardInterrupt):
        cancel(engine, operation)
        raise
    except Exception as error:
        whose = "PostgreSQL" if isinstance(error, SQLAlchemyError) else "A bug in ingest"
        with contextlib.suppress(SQLAlchemyError), engine.begin() as connection:
            fail(connection, operation, f"{whose}: {type(error).__name__}.")
        raise


def cancel(engine: Engine, operation: int) -> None:
    """Cancel an operation, and take back all that has not begun; one that has ended stays so.

    Where somebody else holds what this needs, it is repeated.

    Raises:
        SQLAlchemyError: PostgreSQL is away, or something stays locked.
    """

    def change() -> None:
        with engine.begin() as connection:
            change_status(connection, operation, CANCELLED)

    until_free(change)
    until_free(lambda: take_back_all(engine, operation, within_s=math.inf))


_HOLD = statement(
    """
    SELECT *, greatest(0, CAST(extract(epoch FROM coalesce(paced_until, now()) - now()) AS float8))
              AS ahead_s
    FROM ingest.replays WHERE id = :id FOR UPDATE
    """
)


_ADVANCE = statement(
    """
    UPDATE ingest.replays
    SET jobs = jobs + :jobs, events = events + :events, running = running + :running,
        after_jobs_of = coalesce(CAST(:after_jobs_of AS uuid), after_jobs_of),
        after_event = coalesce(CAST(:after_event AS uuid), after_event),
        paced_until = now() + make_interval(secs => :ahead_s)
    WHERE id = :id
    """
)


_END = statement(
    "UPDATE ingest.replays SET status = 'finished', finished_at = now() WHERE id = :id"
)


def advance(engine: Engine, operation: int) -> Progress:
    """Do the next batch of an operation.

    Concurrent callers wait for each other, and each batch is done once. In the background, an
    operation with a rate requeues only what falls due in the next half minute, so that the rest can
    still be paused or cancelled.

    Raises:
        SQLAlchemyError: PostgreSQL is away, or the statement took too long; nothing was done.
    """
    with engine.begin() as connection:
        turns.hold_off_removal(connection)
        row = connection.execute(_HOLD, {"id": operation}).one_or_none()
        if row is None or row.status != "running":
            return Progress(counts=Counts(), has_ended=True)
        so_far = Counts(jobs=row.jobs, events=row.events, running=row.running)
        if row.background and row.ahead_s > _AHEAD_S:
            return Progress(counts=so_far, waits=True)
        batch = _Batch(connection, row)
        step = batch.jobs() or batch.events() or batch.passed_by()
        if step is None:
            connection.execute(_END, {"id": operation})
            return Progress(counts=so_far, has_ended=True)
        connection.execute(
            _ADVANCE,
            {
                "id": operation,
                "jobs": step.counts.jobs,
                "events": step.counts.events,
                "running": step.counts.running,
                "after_jobs_of": step.after_jobs_of,
                "after_event": step.after_event,
                "ahead_s": step.ahead_s,
            },
        )
    return Progress(counts=so_far + step.counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """What a batch did, and where the next one continues."""

    counts: Counts
    after_jobs_of: UUID | None = None
    after_event: UUID | None = None
    ahead_s: float = 0.0
    """How many seconds from now the next job falls due by the rate."""


# The event's first delivery becomes unadmitted again, and admit makes the jobs that it lacks. If it
# already waits for the job of another processor, it gets the jobs of all processors, and counts for
# this operation.
_READMIT = statement(
    """
    INSERT INTO ingest.unadmitted (delivery, source, event_id, type, fingerprint, received_at,
                                   queue, hint_at, processor, replay)
    SELECT e.id, e.source, e.event_id, e.type, e.fingerprint, e.received_at, :queue,
           now() + make_interval(secs => requested.delay_s), :processor, :replay
    FROM unnest(CAST(:ids AS uuid[]), CAST(:delays_s AS float8[])) AS requested (id, delay_s)
    JOIN ingest.events e USING (id)
    ON CONFLICT (delivery) DO UPDATE SET processor = NULL, replay = EXCLUDED.replay
    WHERE unadmitted.processor IS DISTINCT FROM EXCLUDED.processor
      AND unadmitted.processor IS NOT NULL
    """
)


class _Batch:
    """The next batch of an operation, in the transaction that records it."""

    def __init__(self, connection: Connection, row: Any) -> None:
        """Take the operation's `row`, which `_HOLD` has locked."""
        self._connection = connection
        self._row = row
        self._action: str = row.action
        self._selection = EventFilter.from_json(row.selection)
        # With a slow rate, a batch holds what falls due in about `_AHEAD_S` seconds.
        self._size = BATCH if row.rate is None else max(1, min(BATCH, int(row.rate * _AHEAD_S)))
        self._search = Search(connection, row, self._selection, size=self._size)

    def jobs(self) -> _Step | None:
        """Requeue or discard the next jobs; return None if none are left."""
        found = self._search.following()
        return None if found is None else self._change(found.ids, after_jobs_of=found.reached)

    def passed_by(self) -> _Step | None:
        """Requeue jobs that are behind, though they are to be requeued again; return None if there
        are none."""
        ids = self._search.passed_by()
        return self._change(ids) if ids else None

    def _change(self, ids: Sequence[int], *, after_jobs_of: UUID | None = None) -> _Step:
        counts = self._discard(ids) if self._action == DISCARD else self._requeue(ids)
        return _Step(counts=counts, after_jobs_of=after_jobs_of, ahead_s=self._ahead_s(len(ids)))

    def _requeue(self, ids: Sequence[int]) -> Counts:
        requeued = jobs.requeue(
            self._connection,
            ids,
            replay=self._row.id,
            queue=queues.REPLAY,
            delays_s=self._delays_s(len(ids)),
        )
        if self._row.taken_back:
            forget_jobs(self._connection, self._row.id, requeued.job_ids)
        return Counts(jobs=len(requeued.job_ids), running=requeued.running)

    def _discard(self, ids: Sequence[int]) -> Counts:
        discarded = jobs.discard(
            self._connection, ids, replay=self._row.id, why=_reason_of_discard(self._row)
        )
        return Counts(jobs=discarded)

    def events(self) -> _Step | None:
        """Readmit the next events that lack the job; return None if none are left."""
        if self._action == DISCARD or not includes_events(self._selection):
            return None
        condition = where(self._selection)
        page = statement(
            f"""
            SELECT events.id FROM ingest.events
            WHERE {condition.sql} AND {self._lacks_job()} AND {HAS_BODY}
              AND events.id > :after AND events.id <= CAST(:last AS uuid)
            ORDER BY events.id LIMIT {self._size}
            """
        )
        bounds = {"after": self._row.after_event, "last": self._row.last_event}
        parameters = condition.parameters | job_parameters(self._selection, self._row.id) | bounds
        ids = list(self._connection.execute(page, parameters).scalars())
        if not ids:
            return None
        readmitted = self._connection.execute(
            _READMIT,
            {
                "ids": ids,
                "delays_s": self._delays_s(len(ids)),
                "replay": self._row.id,
                "queue": queues.REPLAY,
                "processor": self._selection.processor,
            },
        ).rowcount
        if self._row.taken_back:
            forget_events(self._connection, self._row.id, ids)
        return _Step(
            counts=Counts(events=readmitted),
            after_event=ids[-1],
            ahead_s=self._ahead_s(len(ids)),
        )

    def _lacks_job(self) -> str:
        """Return the condition on events that lack a job. One of which a job was taken back, while
        another had begun, is no longer unhandled."""
        if not self._row.taken_back or self._selection.processor is not None:
            return lacks_job(self._selection)
        return """events.id IN (
            SELECT event FROM ingest.unhandled
            UNION ALL
            SELECT event FROM ingest.taken_back
            WHERE taken_back.replay = :operation
              AND NOT EXISTS (SELECT FROM ingest.jobs WHERE id = taken_back.job)
        )"""

    def _delays_s(self, count: int) -> list[float]:
        """Return when each item of the batch is due, seconds from now."""
        if self._row.rate is None:
            return [0.0] * count
        return [self._row.ahead_s + number / self._row.rate for number in range(count)]

    def _ahead_s(self, count: int) -> float:
        """Return when the item after the batch is due, seconds from now."""
        return 0.0 if self._row.rate is None else float(self._row.ahead_s + count / self._row.rate)


def _reason_of_discard(row: Any) -> str:
    return f"Discarded by {row.requested_by}" + (f": {row.reason}" if row.reason else ".")
