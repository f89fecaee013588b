"""What has become of the jobs of a replay or discard: what waits, runs, succeeded, failed again.

A job counts for the last operation that requeued or discarded it, so it is counted by an index of
those (`jobs_replayed`). What an operation requeued and does not find there any more was replayed
again by a later one, or removed by retention. Events that wait to be admitted again have no index:
it would cost the table that each delivery is written to. The first of all operations are counted.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from ingest import queues
from ingest.store.sql import statement

MOST = 250_000
"""Of each state so many jobs are counted, in half a second at worst."""
MOST_IN_LIST = 1_000
"""Likewise, of each operation of a list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What has become of what an operation requeued or discarded."""

    to_begin: int = 0
    """Jobs and events that it has not come to yet, by the count beforehand."""
    unadmitted: int = 0
    """Events that wait to be admitted again, which makes their jobs."""
    pending: int = 0
    """Jobs that wait, and have not begun."""
    running: int = 0
    retrying: int = 0
    """Jobs that failed again, and wait for another attempt."""
    succeeded: int = 0
    dead: int = 0
    """Jobs that failed again, for good."""
    discarded: int = 0
    taken_back: int = 0
    """Jobs and events that are what they were before, by a pause or a cancel."""
    moved_on: int = 0
    """Jobs that a later operation replayed again, or that retention has removed."""
    without_job: int = 0
    """Events that were admitted again and have no job of this operation: no processor takes their
    type, or a later operation has replayed their jobs."""
    is_capped: bool = False
    """Whether there may be more in a state than was counted."""
    uncounted: int = 0
    """Jobs and events beyond what was counted, at least so many."""

    @property
    def waiting(self) -> int:
        """Return the jobs and events that have not begun."""
        return self.unadmitted + self.pending

    @property
    def unfinished(self) -> int:
        """Return what waits or runs, retries included."""
        return self.waiting + self.running + self.retrying

    @property
    def done(self) -> int:
        """Return what has come to its end."""
        ended = self.succeeded + self.dead + self.discarded
        return ended + self.moved_on + self.without_job

    @property
    def total(self) -> int:
        """Return all that is done, unfinished, taken back or still to begin. What a pause took back
        is to begin again."""
        begun = self.done + self.unfinished + self.uncounted
        return begun + max(self.to_begin, self.taken_back)


# A subquery with a limit for each state, in the order of the index, so that the planner takes it.
# Jobs with an id after `last_job` were made by the operation.
_BY_STATE = statement(
    """
    SELECT o.id AS operation, s.state, counted.*
    FROM unnest(CAST(:ids AS bigint[]), CAST(:last_jobs AS bigint[])) AS o (id, last_job)
    CROSS JOIN unnest(CAST(:states AS text[])) AS s (state)
    CROSS JOIN LATERAL (
        SELECT count(*) AS jobs, count(discarded_at) AS discarded,
               count(*) FILTER (WHERE job.id <= o.last_job) AS requeued
        FROM (SELECT id, discarded_at FROM ingest.jobs
              WHERE replay = o.id AND state = s.state ORDER BY event LIMIT :most) AS job
    ) AS counted
    WHERE jobs > 0
    """
)
_LARGEST_ID = 2**63 - 1
_STATES = ("pending", "running", "retrying", "succeeded", "dead")
# The rows of the replays' queue are those of replays, and rejected deliveries that were replayed.
_UNADMITTED = statement(
    """
    SELECT replay AS operation, count(*) AS events FROM (
        SELECT replay FROM ingest.unadmitted WHERE queue = :queue ORDER BY hint_at LIMIT :most
    ) AS waiting
    GROUP BY replay
    """
)
_WAITS = statement(
    "SELECT true FROM ingest.unadmitted WHERE queue = :queue AND replay = :operation LIMIT 1"
)
_EVENTS_WITH_JOB = statement(
    """
    SELECT count(DISTINCT event) FROM (
        SELECT event FROM ingest.jobs
        WHERE replay = :id AND state = ANY(CAST(:states AS text[])) AND id > :last_job
        LIMIT :most
    ) AS made
    """
)


def read(connection: Connection, rows: Sequence[Any], *, most: int = MOST) -> dict[int, Work]:
    """Count for each of some operations what has become of it.

    Args:
        connection: in whose transaction to read.
        rows: of `replays`.
        most: jobs to count of each operation in each state, and events to be admitted of all.
    """
    ids = [row.id for row in rows]
    by_operation: dict[int, dict[str, Any]] = defaultdict(dict)
    bounds = [last_job(row) for row in rows]
    parameters = {"ids": ids, "last_jobs": bounds, "states": list(_STATES), "most": most}
    for counted in connection.execute(_BY_STATE, parameters):
        by_operation[counted.operation][counted.state] = counted
    bound = {"queue": queues.REPLAY, "most": most}
    has_events = any(row.events for row in rows)
    waiting = connection.execute(_UNADMITTED, bound).all() if has_events else ()
    unadmitted = {counted.operation: counted.events for counted in waiting}
    is_cut = sum(unadmitted.values()) >= most
    if is_cut:  # whether others have ended must not depend on their place in the queue
        for row in rows:
            if row.events and row.id not in unadmitted:
                one = {"queue": queues.REPLAY, "operation": row.id}
                unadmitted[row.id] = int(connection.execute(_WAITS, one).scalar() or 0)
    return {
        row.id: _work(
            connection,
            row,
            by_operation[row.id],
            unadmitted.get(row.id, 0),
            most,
            is_cut=is_cut and row.events > 0,
        )
        for row in rows
    }


def last_job(row: Any) -> int:
    """Return the last job that there was when an operation began; those after it, it has made.

    Operations of the first releases did not say."""
    if row.last_job is None:
        return _LARGEST_ID if row.jobs else 0
    return int(row.last_job)


def _work(
    connection: Connection,
    row: Any,
    counted: dict[str, Any],
    unadmitted: int,
    most: int,
    *,
    is_cut: bool,
) -> Work:
    jobs = {state: counted[state].jobs if state in counted else 0 for state in _STATES}
    discarded = counted["dead"].discarded if "dead" in counted else 0
    is_capped = is_cut or max(jobs.values()) >= most
    counted_at_all = unadmitted + sum(jobs.values())
    requeued = sum(of_state.requeued for of_state in counted.values())
    has_requeued_all = row.status in ("finished", "cancelled")
    planned = 0 if has_requeued_all else row.total or 0
    return Work(
        to_begin=max(0, planned - row.jobs - row.events),
        unadmitted=unadmitted,
        pending=jobs["pending"],
        running=jobs["running"],
        retrying=jobs["retrying"],
        succeeded=jobs["succeeded"],
        dead=jobs["dead"] - discarded,
        discarded=discarded,
        taken_back=row.taken_back,
        moved_on=0 if is_capped else max(0, row.jobs - requeued),
        without_job=0 if is_capped else _without_job(connection, row, unadmitted, most),
        is_capped=is_capped,
        uncounted=max(0, row.jobs + row.events - counted_at_all) if is_capped else 0,
    )


def _without_job(connection: Connection, row: Any, unadmitted: int, most: int) -> int:
    if row.events <= unadmitted:
        return 0
    of_all_states = most * len(_STATES)
    bounds = {"id": row.id, "last_job": last_job(row), "states": list(_STATES)}
    with_job = int(
        connection.execute(_EVENTS_WITH_JOB, bounds | {"most": of_all_states}).scalar_one()
    )
    return max(0, int(row.events) - unadmitted - with_job)
