"""The processors that workers have registered, and pausing them.

The jobs of a paused processor wait: none is claimed (ingest.store.pipeline.jobs). A running job
runs to its end.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from ingest.errors import NotFound
from ingest.store.sql import statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A processor as a worker has it."""

    name: str
    types: tuple[str, ...]
    queue: str
    batch: bool
    threads: int
    max_attempts: int
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorRecord:
    """A registered processor with what its jobs are up to."""

    name: str
    types: tuple[str, ...]
    queue: str
    batch: bool
    threads: int
    max_attempts: int
    timeout_s: float
    registered_at: datetime
    paused_at: datetime | None
    paused_by: str | None
    pause_reason: str | None
    pending: int
    retrying: int
    running: int
    dead: int
    """Dead letters that nobody has discarded."""


_REGISTER = statement(
    """
    INSERT INTO ingest.processors (name, types, queue, batch, threads, max_attempts, timeout_s,
                            registered_at)
    VALUES (:name, CAST(:types AS jsonb), :queue, :batch, :threads, :max_attempts, :timeout_s,
            now())
    ON CONFLICT (name) DO UPDATE
    SET types = excluded.types, queue = excluded.queue, batch = excluded.batch,
        threads = excluded.threads, max_attempts = excluded.max_attempts,
        timeout_s = excluded.timeout_s, registered_at = excluded.registered_at
    """
)


def register(connection: Connection, found: Sequence[Registered]) -> None:
    """Record what a worker has; a pause stays."""
    for each in sorted(found, key=lambda each: each.name):
        connection.execute(
            _REGISTER,
            {
                "name": each.name,
                "types": json.dumps(each.types),
                "queue": each.queue,
                "batch": each.batch,
                "threads": each.threads,
                "max_attempts": each.max_attempts,
                "timeout_s": each.timeout_s,
            },
        )


# Counted in the small indexes of what waits, runs and is dead.
_ALL = statement(
    """
    WITH waiting AS (
        SELECT processor, count(*) FILTER (WHERE state = 'pending') AS pending,
               count(*) FILTER (WHERE state = 'retrying') AS retrying
        FROM ingest.jobs WHERE due_at IS NOT NULL GROUP BY processor
    ), held AS (
        SELECT processor, count(*) AS running FROM ingest.jobs WHERE lease_until IS NOT NULL
        GROUP BY processor
    ), lost AS (
        SELECT processor, count(*) AS dead FROM ingest.jobs
        WHERE state = 'dead' AND discarded_at IS NULL GROUP BY processor
    )
    SELECT p.name, p.types, p.queue, p.batch, p.threads, p.max_attempts, p.timeout_s,
           p.registered_at, p.paused_at, p.paused_by, p.pause_reason,
           coalesce(waiting.pending, 0) AS pending, coalesce(waiting.retrying, 0) AS retrying,
           coalesce(held.running, 0) AS running, coalesce(lost.dead, 0) AS dead
    FROM ingest.processors p
    LEFT JOIN waiting ON waiting.processor = p.name
    LEFT JOIN held ON held.processor = p.name
    LEFT JOIN lost ON lost.processor = p.name
    ORDER BY p.name
    """
)


def all_of_them(connection: Connection) -> list[ProcessorRecord]:
    """Every processor that was ever registered, by name."""
    return [
        ProcessorRecord(**{**row, "types": tuple(row["types"])})
        for row in connection.execute(_ALL).mappings()
    ]


_TYPES = statement("SELECT name, types FROM ingest.processors")


def types(connection: Connection) -> dict[str, tuple[str, ...]]:
    """The types that each processor works on."""
    return {row.name: tuple(row.types) for row in connection.execute(_TYPES)}


_PRESENT_QUEUES = statement("SELECT name, queue FROM ingest.processors")


def present_queues(connection: Connection) -> dict[str, str]:
    """Return the queue of each processor, as it was registered last."""
    return {row.name: row.queue for row in connection.execute(_PRESENT_QUEUES)}


_QUEUES = statement("SELECT DISTINCT queue FROM ingest.processors")


def queues(connection: Connection) -> list[str]:
    """The queues that they use."""
    return list(connection.execute(_QUEUES).scalars())


_PAUSE = statement(
    """
    UPDATE ingest.processors
    SET paused_at = coalesce(paused_at, now()), paused_by = :by, pause_reason = :reason
    WHERE name = :name
    """
)


def pause(connection: Connection, name: str, *, by: str, reason: str | None) -> None:
    """Let the jobs of a processor wait, from the next claim on.

    Raises:
        NotFound: no worker has registered it.
    """
    _one(connection, _PAUSE, name, by=by, reason=reason)


_IS_PAUSED = statement(
    "SELECT 1 FROM ingest.processors WHERE name = :name AND paused_at IS NOT NULL"
)


def is_paused(connection: Connection, name: str) -> bool:
    """Whether its jobs wait."""
    return connection.execute(_IS_PAUSED, {"name": name}).scalar() is not None


_RESUME = statement(
    "UPDATE ingest.processors SET paused_at = NULL, paused_by = NULL, pause_reason = NULL"
    " WHERE name = :name"
)


def resume(connection: Connection, name: str) -> None:
    """Let its jobs go on; within a sweep of the relay they are dispatched.

    Raises:
        NotFound: no worker has registered it.
    """
    _one(connection, _RESUME, name)


_SET_ASIDE = statement(
    """
    SELECT name, paused_at IS NOT NULL AS paused FROM ingest.processors
    WHERE paused_at IS NOT NULL OR parked
    ORDER BY name FOR UPDATE
    """
)


def pause_changes(connection: Connection) -> tuple[list[str], list[str]]:
    """Which processors are paused, and which are no more but have jobs put aside. Both are locked
    until the transaction ends: none is paused or resumed while its jobs are moved."""
    rows = connection.execute(_SET_ASIDE).all()
    return [row.name for row in rows if row.paused], [row.name for row in rows if not row.paused]


_SETTLE = statement(
    """
    UPDATE ingest.processors SET parked = false
    WHERE name = ANY(CAST(:names AS text[])) AND NOT EXISTS (
        SELECT FROM ingest.jobs WHERE due_at = 'infinity' AND jobs.processor = processors.name
          AND NOT EXISTS (SELECT FROM ingest.parked
                          WHERE parked.processor = jobs.processor AND parked.queue = jobs.queue)
    )
    """
)


def mark_unparked(connection: Connection, names: Sequence[str]) -> None:
    """Note of those of `names` that nothing of theirs is put aside any more, if that is so."""
    connection.execute(_SETTLE, {"names": list(names)})


def _one(connection: Connection, statement: object, name: str, **values: str | None) -> None:
    changed = connection.execute(statement, {"name": name, **values})  # type: ignore[call-overload]
    if changed.rowcount == 0:
        raise NotFound(f"No worker has registered a processor {name}.", reason="not_found")
