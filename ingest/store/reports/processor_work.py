"""The unfinished jobs of one processor: what waits, since when, what runs, what failed and how.

No index leads from a processor to its waiting and dead jobs: it would cost each job, and only this
report needs it. So a bounded part of the small indexes is read, those that are due first and those
that died last, and what belongs to the processor is counted there. Where a bound is reached the
counts are lower bounds, and say so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from ingest import queues
from ingest.store import arrays
from ingest.store.pipeline.jobs import ParkedJobs
from ingest.store.pipeline.processors import KnownProcessor
from ingest.store.reports.failures import ERROR_TYPE, RAISED_AT
from ingest.store.sql import statement

EXAMINED = 2_000
"""Jobs that are read at most of each queue, of the dead ones and of the running ones, whosever they
are; and parked jobs of the processor."""
GROUPED = 200
"""Dead and retrying jobs that are grouped at most: each takes reading a traceback."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingJobs:
    """Dead and retrying jobs of a processor whose last attempts failed in the same way."""

    error_type: str
    raised_at: str | None
    """The last frame of the traceback, as Python spells it; null: there is none."""
    message: str | None
    """The error message of the newest."""
    jobs: int
    dead: int
    first_seen: datetime
    last_seen: datetime
    example: UUID
    """The event of the newest."""


_WAITING = statement(
    """
    SELECT count(*) AS examined,
           count(*) FILTER (WHERE is_own AND state = 'pending') AS pending,
           count(*) FILTER (WHERE is_own AND state = 'retrying') AS retrying,
           count(*) FILTER (WHERE is_own AND next_attempt_at <= now()) AS due,
           min(next_attempt_at) FILTER (WHERE is_own AND next_attempt_at <= now()) AS due_since,
           (array_agg(id) FILTER (WHERE is_own AND state = 'retrying')
           )[1 : CAST(:grouped AS integer)] AS failing
    FROM unnest(CAST(:queues AS text[])) AS named (queue)
    CROSS JOIN LATERAL (
        SELECT id, state, next_attempt_at, processor = :name AS is_own
        FROM ingest.jobs
        WHERE queue = named.queue AND due_at IS NOT NULL AND due_at < 'infinity'
        ORDER BY due_at LIMIT :limit
    ) AS waiting
    GROUP BY named.queue
    """
)
_PARKED = statement(
    """
    SELECT counted.*, coalesce(parked.reason, 'paused') AS reason, parked.since
    FROM (
        SELECT queue, count(*) AS jobs,
               count(*) FILTER (WHERE state = 'pending') AS pending,
               count(*) FILTER (WHERE state = 'retrying') AS retrying,
               count(*) FILTER (WHERE next_attempt_at <= now()) AS due,
               min(next_attempt_at) FILTER (WHERE next_attempt_at <= now()) AS due_since,
               (array_agg(id) FILTER (WHERE state = 'retrying')
               )[1 : CAST(:grouped AS integer)] AS failing
        FROM (
            SELECT id, queue, state, next_attempt_at FROM ingest.jobs
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
    SELECT count(*) AS examined, count(*) FILTER (WHERE processor = :name) AS jobs,
           (array_agg(id ORDER BY event DESC) FILTER (WHERE processor = :name)
           )[1 : CAST(:grouped AS integer)] AS failing
    FROM (
        SELECT id, event, processor FROM ingest.jobs
        WHERE state = 'dead' AND discarded_at IS NULL
        ORDER BY event DESC LIMIT :limit
    ) AS lost
    """
)


def read(
    connection: Connection, processor: KnownProcessor
) -> tuple[ProcessorWork, tuple[FailingJobs, ...]]:
    """Return a processor's unfinished jobs, and those that fail, grouped, the most first."""
    bounds = {"name": processor.name, "limit": EXAMINED, "grouped": GROUPED}
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
    work = ProcessorWork(
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
    failing = [job for row in (dead, *unclaimed) for job in row.failing or ()]
    return work, _grouped(connection, failing[:GROUPED])


def _parked(row: Any, processor: KnownProcessor) -> ParkedJobs:
    is_paused = processor.paused_at is not None
    return ParkedJobs(
        processor=processor.name,
        queue=row.queue,
        reason="paused" if is_paused else row.reason,
        since=processor.paused_at or row.since,
        jobs=row.jobs,
    )


_GROUPS = statement(
    f"""
    SELECT {ERROR_TYPE} AS error_type, {RAISED_AT} AS raised_at,
           count(*) AS jobs, count(*) FILTER (WHERE jobs.state = 'dead') AS dead,
           min(a.finished_at) AS first_seen, max(a.finished_at) AS last_seen,
           (array_agg(jobs.event ORDER BY jobs.event DESC))[1] AS example,
           (array_agg(a.error_message ORDER BY jobs.event DESC))[1] AS message
    FROM ingest.jobs
    JOIN ingest.attempts a ON a.job = jobs.id AND a.number = jobs.attempt
    WHERE jobs.id = ANY(CAST(:jobs AS bigint[])) AND a.outcome NOT IN ('snoozed', 'released')
    GROUP BY 1, 2
    ORDER BY jobs DESC, last_seen DESC
    """
)


def _grouped(connection: Connection, failing: Sequence[int]) -> tuple[FailingJobs, ...]:
    if not failing:
        return ()
    rows = connection.execute(_GROUPS, {"jobs": arrays.literal(failing)}).mappings()
    return tuple(FailingJobs(**row) for row in rows)
