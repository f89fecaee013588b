"""Which jobs a replay or discard takes next, in the order of their events.

What is named, or was looked up before, the planner finds by the index that leads to it. Anything
else is looked for among the jobs as an index has them in that order, a slice a statement. So what a
statement costs is bounded, however rare the jobs are that are meant, and however many are behind.
There the planner has no choice: by a wrong estimate it would read and sort all that is left, in
each batch.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row

from ingest.store.bulk.selected import (
    DISCARD,
    NEEDS,
    REPLAY,
    job_conditions,
    job_parameters,
    received,
    way_to_jobs,
)
from ingest.store.search.filters import UNHANDLED, EventFilter, where
from ingest.store.sql import statement

SLICE = 10_000
"""Jobs that one statement goes through, in 40 ms at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NextJobs:
    """Jobs to requeue or discard, locked."""

    ids: Sequence[int]
    """In the order of their events. None of a slice may be meant."""
    reached: UUID
    """Of the events up to this one, all jobs that are meant are among these, or were before."""


class Search:
    """Looks for the next jobs of an operation, in the transaction that records what is done."""

    def __init__(
        self, connection: Connection, operation: Row[Any], selection: EventFilter, *, size: int
    ) -> None:
        """Take a row of `replays`, and how many jobs to find; those of an event are not parted."""
        self._connection = connection
        self._operation = operation
        self._selection = selection
        self._size = size
        action: str = operation.action
        condition = where(selection)
        of_jobs = f"{job_conditions(selection, action)} AND jobs.id <= :last_job"
        self._meant = f"{condition.sql} AND {of_jobs} AND {_NOT_YET[action]} AND {NEEDS[action]}"
        self._values = {
            **condition.parameters,
            **job_parameters(selection, operation.id),
            "after_jobs_of": operation.after_jobs_of,
            "after_job": operation.after_job,
            "last_job": operation.last_job,
        }

    def following(self) -> NextJobs | None:
        """Return the jobs after those that the operation has done; None: no more are left."""
        if self._selection.state == UNHANDLED:
            return None
        page, edge = self._looked_up() if _leads_to_events(self._selection) else self._slice()
        if not page and edge is None:
            return None
        reached: UUID = page[-1].event if edge is None or len(page) >= self._size else edge
        return NextJobs(ids=self._locked(page), reached=reached)

    def passed_by(self) -> Sequence[int]:
        """Return jobs that were taken back and that a resumed operation has passed by: a console of
        the release before says only by `after_job` where to begin again."""
        return self._locked(self._page(_TAKEN_BACK)) if self._operation.taken_back else []

    def _looked_up(self) -> tuple[Sequence[Row[Any]], None]:
        return self._page(_AFTER), None

    def _slice(self) -> tuple[Sequence[Row[Any]], UUID | None]:
        """Return what is meant of the next slice, and its last event if there is more behind it."""
        conditions = ["event > :after_jobs_of", *received(self._selection)]
        query = f"""
            SELECT event FROM ingest.jobs
            WHERE {" AND ".join(conditions)} AND {way_to_jobs(self._selection)}
            ORDER BY event OFFSET {SLICE - 1} LIMIT 1
        """
        with _in_order(self._connection):
            edge: UUID | None = self._connection.execute(statement(query), self._values).scalar()
            return self._page(f"{_AFTER} AND jobs.event <= :edge", edge=edge or _LAST), edge

    def _page(self, which: str, **bounds: UUID) -> Sequence[Row[Any]]:
        query = f"""
            SELECT jobs.id, jobs.event FROM ingest.jobs JOIN ingest.events ON events.id = jobs.event
            WHERE {self._meant} AND {which}
            ORDER BY jobs.event FETCH FIRST {self._size} ROWS WITH TIES
        """
        return self._connection.execute(statement(query), self._values | bounds).all()

    def _locked(self, page: Sequence[Row[Any]]) -> Sequence[int]:
        """Lock jobs in the order of their ids, as everybody does; return those still meant."""
        query = f"""
            WITH locked AS MATERIALIZED (
                SELECT * FROM ingest.jobs WHERE id = ANY(CAST(:found AS bigint[]))
                ORDER BY id FOR UPDATE
            )
            SELECT jobs.id FROM locked AS jobs CROSS JOIN LATERAL (
                SELECT * FROM ingest.events WHERE id BETWEEN jobs.event AND jobs.event
                ORDER BY id LIMIT 1
            ) AS events
            WHERE {self._meant}
        """
        found = {"found": [row.id for row in page]}
        meant = set(self._connection.execute(statement(query), self._values | found).scalars())
        return [row.id for row in page if row.id in meant]


_LAST = UUID(int=2**128 - 1)
# Code of the release before counts in `after_job` what it has done.
_AFTER = "jobs.event > :after_jobs_of AND jobs.id > :after_job"
_TAKEN_BACK = """jobs.state <> 'running' AND jobs.id = ANY(ARRAY(
                SELECT job FROM ingest.taken_back WHERE replay = :operation
            ))"""
# A resumed operation leaves alone what it, or a later one, has requeued since.
_NOT_YET = {REPLAY: "coalesce(jobs.replay, 0) < :operation", DISCARD: "true"}


def _leads_to_events(selection: EventFilter) -> bool:
    """Return whether an index leads to the events or jobs that are meant."""
    is_named = selection.names_events or bool(selection.among or selection.about)
    return is_named or selection.replay is not None


_SETTINGS = [f"enable_{how}" for how in ("sort", "hashjoin", "mergejoin", "bitmapscan", "seqscan")]
_IN_ORDER = "; ".join(f"SET LOCAL {setting} = off" for setting in _SETTINGS)
_AS_BEFORE = "; ".join(f"SET LOCAL {setting} TO DEFAULT" for setting in _SETTINGS)


@contextlib.contextmanager
def _in_order(connection: Connection) -> Iterator[None]:
    """Have statements go through an index in its order, and look up the rest row by row."""
    connection.exec_driver_sql(_IN_ORDER)
    yield
    connection.exec_driver_sql(_AS_BEFORE)
