"""The unfinished jobs of one processor: what waits, since when, what runs and what is dead.

No index leads from a processor to its waiting and dead jobs: it would cost each job, and only this
report needs it. So a bounded part of the small indexes is read, those that are due first and those
that died last, and what belongs to the processor is counted there. Where a bound is reached the
counts are lower bounds, and say so.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, TextClause

from ingest import queues
from ingest.store.pipeline.jobs import ParkedJobs
from ingest.store.pipeline.processors import KnownProcessor
from ingest.store.sql import statement
from ingest.store.tally import in_time

EXAMINED = 2_000
"""Jobs that are read at most of each queue, of the dead ones and of the running ones, whosever they
are; and parked jobs of the processor."""
FIRST = 100
"""So many are always read, and others while there is time."""
BUDGET_S = 0.005
"""Seconds for those of each kind: all, if they are in memory; from the disk 2,000 take half a
second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorWork:
    """The unfinished jobs of a processor at one moment."""

    pending: int
    """Jobs that wait for their first attempt, or for that of a replay."""
    retrying: int
    """Jobs that failed and wait for their next attempt."""
    due: int
    """How many of both should have begun by now, paused and parked ones among them."""
    due_since: datetime | None
    """Since when the oldest of these should have begun; null: there is none."""
    running: int
    dead: int
    """Dead letters that nobody has discarded."""
    behind: int
    """How many of the waiting ones are behind another of their key."""
    blocked_keys: int
    """Keys whose jobs wait behind a dead letter."""
    parked: tuple[ParkedJobs, ...]
    """How many of the waiting ones no worker may or can take now, by queue, and why."""
    is_least: bool
    """Whether there may be more than these counts say: not all jobs were examined."""


_WAITING = statement(
    """
    SELECT count(*) AS examined,
           count(*) FILTER (WHERE is_own AND state = 'pending') AS pending,
           count(*) FILTER (WHERE is_own AND state = 'retrying') AS retrying,
           count(*) FILTER (WHERE is_own AND next_attempt_at <= now()) AS due,
           min(next_attempt_at) FILTER (WHERE is_own AND next_attempt_at <= now()) AS due_since
    FROM unnest(CAST(:queues AS text[])) AS named (queue)
    CROSS JOIN LATERAL (
        SELECT state, next_attempt_at, processor = :name AS is_own
        FROM ingest.jobs
        WHERE queue = named.queue AND due_at IS NOT NULL AND due_at < 'infinity'
        ORDER BY due_at OFFSET :skip LIMIT :limit
    ) AS waiting
    GROUP BY named.queue
    """
)
_PARKED = statement(
    """
    SELECT counted.*, parked.reason, parked.since
    FROM (
        SELECT queue, queue = max(queue) OVER () AS is_last, count(*) AS jobs,
               count(*) FILTER (WHERE state = 'pending') AS pending,
               count(*) FILTER (WHERE state = 'retrying') AS retrying,
               count(*) FILTER (WHERE next_attempt_at <= now()) AS due,
               min(next_attempt_at) FILTER (WHERE next_attempt_at <= now()) AS due_since
        FROM (
            SELECT queue, state, next_attempt_at FROM ingest.jobs
            WHERE hinted_until = 'infinity' AND processor = :name
            ORDER BY processor, queue LIMIT :limit
        ) AS examined
        GROUP BY queue
    ) AS counted
    LEFT JOIN ingest.parked ON parked.processor = :name AND parked.queue = counted.queue
    ORDER BY jobs DESC, queue
    """
)
_BEHIND = statement(
    """
    SELECT count(*) AS jobs, count(*) FILTER (WHERE state = 'pending') AS pending,
           count(*) FILTER (WHERE state = 'retrying') AS retrying
    FROM (
        SELECT state FROM ingest.jobs
        WHERE next_attempt_at = 'infinity' AND processor = :name LIMIT :limit
    ) AS behind
    """
)
_BLOCKED = statement(
    """
    SELECT count(DISTINCT key) FROM ingest.ordered_jobs
    WHERE placed AND processor = :name AND job = ANY(ARRAY(
        SELECT id FROM ingest.jobs WHERE state = 'dead' AND discarded_at IS NULL
        ORDER BY event DESC LIMIT :limit
    ))
    """
)
_RUNNING = statement(
    """
    SELECT count(*) AS examined, count(*) FILTER (WHERE processor = :name) AS jobs FROM (
        SELECT processor FROM ingest.jobs WHERE lease_until IS NOT NULL
        ORDER BY lease_until OFFSET :skip LIMIT :limit
    ) AS held
    """
)
_DEAD = statement(
    """
    SELECT count(*) AS examined, count(*) FILTER (WHERE processor = :name) AS jobs FROM (
        SELECT processor FROM ingest.jobs
        WHERE state = 'dead' AND discarded_at IS NULL
        ORDER BY event DESC OFFSET :skip LIMIT :limit
    ) AS lost
    """
)


def read(connection: Connection, processor: KnownProcessor) -> ProcessorWork:
    """Return the numbers of a processor's unfinished jobs."""
    bounds = {"name": processor.name, "limit": EXAMINED}
    lanes = sorted({processor.queue, queues.REPLAY})
    waiting = _examine(connection, _WAITING, {"name": processor.name, "queues": lanes})
    parked = connection.execute(_PARKED, bounds).all()
    behind = connection.execute(_BEHIND, bounds).one()
    blocked_keys = connection.execute(_BLOCKED, bounds).scalar_one() if processor.ordered_by else 0
    running = _examine(connection, _RUNNING, {"name": processor.name})
    dead = _examine(connection, _DEAD, {"name": processor.name})
    unclaimed: list[Any] = [*waiting.rows, *parked]
    bounded = max(sum(row.jobs for row in parked), behind.jobs) >= EXAMINED
    return ProcessorWork(
        pending=sum(row.pending for row in (*unclaimed, behind)),
        retrying=sum(row.retrying for row in (*unclaimed, behind)),
        due=sum(row.due for row in unclaimed),
        due_since=min((row.due_since for row in unclaimed if row.due_since), default=None),
        running=sum(row.jobs for row in running.rows),
        dead=sum(row.jobs for row in dead.rows),
        behind=behind.jobs,
        blocked_keys=blocked_keys,
        parked=tuple(_parked(parked, processor)),
        is_least=bounded or not (waiting.is_whole and running.is_whole and dead.is_whole),
    )


class _Examined(NamedTuple):
    """What was counted of jobs of one kind."""

    rows: Sequence[Any]
    is_whole: bool
    """Whether there are no others."""


def _examine(connection: Connection, query: TextClause, parameters: Mapping[str, Any]) -> _Examined:
    """Return what a query counts of the first jobs, and of others while there is time."""
    rows: list[Any] = []
    is_whole = False

    def read(skip: int, limit: int) -> bool:
        bounds = {**parameters, "skip": skip, "limit": limit}
        counted = connection.execute(query, bounds).all()
        rows.extend(counted)
        return all(row.examined < limit for row in counted)

    for is_whole in in_time(read, first=FIRST, most=EXAMINED, budget_s=BUDGET_S):
        if is_whole:
            break
    return _Examined(rows, is_whole)


def _parked(rows: Sequence[Any], processor: KnownProcessor) -> Iterator[ParkedJobs]:
    """Yield what is parked in each queue. They are examined in order, so that where the bound is
    reached, there may be more in the last one."""
    is_cut = sum(row.jobs for row in rows) >= EXAMINED
    for row in rows:
        yield ParkedJobs(
            processor=processor.name,
            queue=row.queue,
            reason=_why_parked(row.reason, processor),
            since=processor.paused_at or row.since or _opened_at(processor),
            jobs=row.jobs,
            is_least=is_cut and row.is_last,
        )


def _why_parked(lane_reason: str | None, processor: KnownProcessor) -> str:
    if processor.paused_at is not None:
        return "paused"
    if lane_reason is None and _opened_at(processor) is not None:
        return "breaker_open"
    return lane_reason or "paused"


def _opened_at(processor: KnownProcessor) -> datetime | None:
    return processor.breaker.opened_at if processor.breaker else None
