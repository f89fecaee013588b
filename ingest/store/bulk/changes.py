"""Pausing, resuming and cancelling an operation, and taking back what of it has not begun.

A pause or a cancel is committed first: nothing more is requeued. Then what was requeued and is not
claimed goes back to what it was, a batch a transaction, the newest first. Whoever changed the
status begins with that, and the console's runner ends it, also after a restart. What runs is left
to end, and what has failed since is retried.

A resumed operation begins again at the first job that was taken back, and leaves alone what it, or
a later operation, has requeued since.
"""

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, TextClause

from ingest import queues
from ingest.store.bulk import operations, work
from ingest.store.bulk.selected import REPLAY
from ingest.store.pipeline import jobs
from ingest.store.pipeline.jobs import TakenBack
from ingest.store.reports import audit_log
from ingest.store.reports.audit_log import Author
from ingest.store.retention import turns
from ingest.store.sql import statement

RUNNING, PAUSED, CANCELLED = "running", "paused", "cancelled"
BATCH = 1_000
"""Jobs that one transaction takes back, in some 50 ms."""

_VERBS = {RUNNING: "resume", PAUSED: "pause", CANCELLED: "cancel"}
_AT_ONCE_S = 1.0
"""Whoever changes a status takes back for so long; the console's runner takes back the rest."""


def change(
    engine: Engine,
    operation: int,
    status: str,
    *,
    by: Author,
    reason: str | None,
    in_background: bool = False,
    within_s: float = _AT_ONCE_S,
) -> bool:
    """Pause, resume or cancel an operation, and record who did; return whether that was possible.

    It is not if the operation has ended: nothing of it is left to begin.

    Args:
        engine: of an operator's role.
        operation: its number.
        status: `running`, `paused` or `cancelled`.
        by: who wants it.
        reason: why.
        in_background: whether the console runs it from now on, if a command did before.
        within_s: seconds for which to take back.

    Raises:
        NotFound: no operation has that number.
    """
    with engine.begin() as connection:
        operations.check(connection, operation)
        if not change_status(connection, operation, status, in_background=in_background):
            connection.rollback()  # a commit would count as a change
            return False
        audit_log.record(
            connection,
            by=by,
            action=_VERBS[status],
            target=f"#{operation}",
            reason=reason,
            replay=operation,
        )
    if status != RUNNING:
        take_back_all(engine, operation, within_s=within_s)
    return True


_HOLD = statement("SELECT * FROM ingest.replays WHERE id = :id FOR UPDATE")
_CHANGE = statement(
    """
    UPDATE ingest.replays
    SET status = CAST(:status AS text), problem = NULL, taking_back = :takes_back,
        background = background OR :in_background,
        finished_at = CASE WHEN CAST(:status AS text) = 'cancelled' THEN now() END
    WHERE id = :id
    """
)


def change_status(
    connection: Connection, operation: int, status: str, *, in_background: bool = False
) -> bool:
    """Do what `change` does but for the audit log and for taking back, which the caller does then,
    or the console's runner."""
    row = connection.execute(_HOLD, {"id": operation}).one_or_none()
    if row is None or not _is_possible(connection, row, status):
        return False
    connection.execute(
        _CHANGE,
        {
            "id": operation,
            "status": status,
            "takes_back": status != RUNNING and row.action == REPLAY,
            "in_background": in_background,
        },
    )
    return True


def _is_possible(connection: Connection, row: Any, status: str) -> bool:
    if row.status in (RUNNING, PAUSED, "failed"):
        return True
    return status != RUNNING and _has_waiting(connection, row)


def take_back(engine: Engine, operation: int) -> int:
    """Take back a batch of what a paused or cancelled operation has requeued and nobody has begun;
    return how many jobs and events.

    Concurrent callers wait for each other. Zero: nothing is left, or a worker has all that is.

    Raises:
        SQLAlchemyError: PostgreSQL is away, or refuses; nothing was taken back.
    """
    with engine.begin() as connection:
        turns.hold_alone(connection)
        row = connection.execute(_HOLD, {"id": operation}).one_or_none()
        # A console of a release before resumes without ending what takes back.
        if row is None or not row.taking_back or row.status == RUNNING:
            return 0
        requeued = jobs.take_back(connection, operation, limit=BATCH)
        made: list[TakenBack] = []
        if not requeued and row.events:
            made = _take_back_events(connection, row)
        taken = [*requeued, *made]
        if taken or not _has_waiting(connection, row):
            _record(connection, operation, requeued, made)
        return len(taken)


def take_back_all(
    engine: Engine,
    operation: int,
    *,
    within_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Take back batch after batch until nothing is left or the time is up; return how many.

    Raises:
        SQLAlchemyError: as `take_back`; what was taken back before stays so.
    """
    ends_at = clock() + within_s
    taken = 0
    while (batch := take_back(engine, operation)) and clock() < ends_at:
        taken += batch
    return taken + batch


_WITHDRAW = statement(
    """
    DELETE FROM ingest.unadmitted WHERE delivery = ANY(ARRAY(
        SELECT delivery FROM ingest.unadmitted
        WHERE queue = :queue AND replay = :replay
          AND (SELECT true FROM ingest.events WHERE id = unadmitted.delivery LIMIT 1)
        ORDER BY hint_at DESC LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING delivery
    """
)


def _take_back_events(connection: Connection, row: Any) -> list[TakenBack]:
    """Withdraw events that were to be admitted again, and then remove the jobs of those that were.

    An event that was never admitted before is none of these: it would be lost.
    """
    bounds = {"replay": row.id, "queue": queues.REPLAY, "limit": BATCH}
    withdrawn = [TakenBack(0, event) for event in connection.execute(_WITHDRAW, bounds).scalars()]
    return withdrawn or jobs.unmake(connection, row.id, made_after=work.last_job(row), limit=BATCH)


_HAS_WAITING = statement(
    """
    SELECT EXISTS (SELECT FROM ingest.jobs WHERE replay = :id AND state = 'pending'
                   AND (CAST(requeued_from ->> 'by' AS bigint) = :id
                        OR (attempt = 0 AND id > :last_job)))
        OR EXISTS (SELECT FROM ingest.unadmitted WHERE queue = :queue AND replay = :id)
    """
)


def _has_waiting(connection: Connection, row: Any) -> bool:
    """Return whether an operation has something to take back. Jobs that a console of a release
    before requeued are not: what they were was not kept."""
    parameters = {"id": row.id, "last_job": work.last_job(row), "queue": queues.REPLAY}
    return bool(connection.execute(_HAS_WAITING, parameters).scalar_one())


_KEEP = statement(
    """
    INSERT INTO ingest.taken_back (replay, event, job)
    SELECT :replay, event, job
    FROM unnest(CAST(:events AS uuid[]), CAST(:jobs AS bigint[])) AS taken (event, job)
    ON CONFLICT DO NOTHING
    """
)
_COUNT = statement(
    """
    UPDATE ingest.replays
    SET jobs = jobs - :jobs, events = greatest(0, events - :events),
        taken_back = taken_back + :taken, taking_back = :has_more, paced_until = NULL,
        after_job = least(after_job, CAST(:first_job AS bigint) - 1),
        after_jobs_of = least(after_jobs_of, CAST(:before_jobs_of AS uuid)),
        after_event = least(after_event, CAST(:before_event AS uuid))
    WHERE id = :id
    """
)


def _record(
    connection: Connection, operation: int, requeued: list[TakenBack], made: list[TakenBack]
) -> None:
    """Count and keep what was taken back, and where a resumed operation begins again."""
    taken = [*requeued, *made]
    if taken:
        values = {"events": [one.event for one in taken], "jobs": [one.job for one in taken]}
        connection.execute(_KEEP, {"replay": operation, **values})
    events = {one.event for one in made}
    connection.execute(
        _COUNT,
        {
            "id": operation,
            "jobs": len(requeued),
            "events": len(events),
            "taken": len(taken),
            "has_more": bool(taken),
            "first_job": min((one.job for one in requeued), default=None),
            "before_jobs_of": _before_all({one.event for one in requeued}),
            "before_event": _before_all(events),
        },
    )


def _before_all(events: Collection[UUID]) -> UUID | None:
    return UUID(int=min(events).int - 1) if events else None


_FORGET_JOBS = statement(
    """
    DELETE FROM ingest.taken_back USING ingest.jobs
    WHERE jobs.id = ANY(CAST(:ids AS bigint[])) AND taken_back.replay = :replay
      AND taken_back.event = jobs.event AND taken_back.job = jobs.id
    """
)
_FORGET_EVENTS = statement(
    """
    DELETE FROM ingest.taken_back
    WHERE replay = :replay AND event = ANY(CAST(:ids AS uuid[]))
      AND (SELECT true FROM ingest.jobs WHERE id = taken_back.job) IS NULL
    """
)
_COUNT_FORGOTTEN = statement(
    "UPDATE ingest.replays SET taken_back = taken_back - :count WHERE id = :id"
)


def forget_jobs(connection: Connection, operation: int, ids: Sequence[int]) -> None:
    """Note that a resumed operation has requeued jobs: they are not taken back any more."""
    _forget(connection, operation, _FORGET_JOBS, ids)


def forget_events(connection: Connection, operation: int, ids: Sequence[UUID]) -> None:
    """Note that a resumed operation has events admitted again, likewise."""
    _forget(connection, operation, _FORGET_EVENTS, ids)


def _forget(
    connection: Connection, operation: int, query: TextClause, ids: Sequence[int] | Sequence[UUID]
) -> None:
    count = connection.execute(query, {"replay": operation, "ids": list(ids)}).rowcount
    connection.execute(_COUNT_FORGOTTEN, {"id": operation, "count": count})
