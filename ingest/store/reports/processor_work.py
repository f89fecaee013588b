"""The unfinished jobs of one processor: what waits, since when, what runs and what is dead.

No index leads from a processor to its waiting and dead jobs: it would cost each job, and only this
report needs it. So a bounded part of the small indexes is read, those that are due first and those
that died last, and what belongs to the processor is counted there. Where a bound is reached the
counts are lower bounds, and say so.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from ingest import queues
from ingest.store.pipeline.jobs import ParkedJobs
from ingest.store.pipeline.processors import KnownProcessor
from ingest.store.sql import statement

EXAMINED = 2_000
"""Jobs that are read at most of each queue, of the dead ones and of the running ones, whosever they
are; and parked jobs of the processor."""


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
        ORDER BY due_at LIMIT :limit
    ) AS waiting
    GROUP BY named.queue
    """
)
_PARKED = statement(
    """
    SELECT counted.*, parked.reason, parked.since
    FROM (
        SELECT queue, count(*) AS jobs,
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
        ORDER BY lease_until LIMIT :limit
    ) AS held
    """
)
_DEAD = statement(
    """
    SELECT count(*) AS examined, count(*) FILTER (WHERE processor = :name) AS jobs FROM (
        SELECT processor FROM ingest.jobs
        WHERE state = 'dead' AND discarded_at IS NULL
        ORDER BY event DESC LIMIT :limit
    ) AS lost
    """
)


def read(connection: Connection, processor: KnownProcessor) -> ProcessorWork:
    """Return the numbers of a processor's unfinished jobs."""
    bounds = {"name": processor.name, "limit": EXAMINED}
    lanes = sorted({processor.queue, queues.REPLAY})
    waiting = connection.execute(_WAITING, bounds | {"queues": lanes}).all()
    parked = connection.execute(_PARKED, bounds).all()
    behind = connection.execute(_BEHIND, bounds).one()
    blocked_keys = connection.execute(_BLOCKED, bounds).scalar_one() if processor.ordered_by else 0
    running = connection.execute(_RUNNING, bounds).one()
    dead = connection.execute(_DEAD, bounds).one()
    unclaimed: list[Any] = [*waiting, *parked]
    examined = [row.examined for row in (*waiting, running, dead)]
    examined += [sum(row.jobs for row in parked), behind.jobs]
    return ProcessorWork(
        pending=sum(row.pending for row in (*unclaimed, behind)),
        retrying=sum(row.retrying for row in (*unclaimed, behind)),
        due=sum(row.due for row in unclaimed),
        due_since=min((row.due_since for row in unclaimed if row.due_since), default=None),
        running=running.jobs,
        dead=dead.jobs,
        behind=behind.jobs,
        blocked_keys=blocked_keys,
        parked=tuple(_parked(row, processor) for row in parked),
        is_least=max(examined) >= EXAMINED,
    )


def _parked(row: Any, processor: KnownProcessor) -> ParkedJobs:
    return ParkedJobs(
        processor=processor.name,
        queue=row.queue,
        reason=_why_parked(row.reason, processor),
        since=processor.paused_at or row.since or _opened_at(processor),
        jobs=row.jobs,
        is_least=row.jobs >= EXAMINED,
    )


def _why_parked(lane_reason: str | None, processor: KnownProcessor) -> str:
    if processor.paused_at is not None:
        return "paused"
    if lane_reason is None and _opened_at(processor) is not None:
        return "breaker_open"
    return lane_reason or "paused"


def _opened_at(processor: KnownProcessor) -> datetime | None:
    return processor.breaker.opened_at if processor.breaker else None
