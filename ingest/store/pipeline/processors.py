"""The processors that workers have registered, and pausing them.

The jobs of a paused processor wait: none is claimed (ingest.store.pipeline.jobs). A job that runs
already runs to its end.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from ingest.errors import NotFound
from ingest.store.pipeline import breakers, ordering, schedules
from ingest.store.pipeline.breakers import BreakerRecord
from ingest.store.pipeline.ordering import Lines
from ingest.store.pipeline.schedules import ScheduleRecord
from ingest.store.pipeline.unfinished import Unfinished
from ingest.store.sql import statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A processor as a worker registers it."""

    name: str
    types: tuple[str, ...]
    queue: str
    batch: bool
    threads: int
    max_attempts: int
    timeout_s: float
    ordered_by: str | None = None
    """What its jobs are kept in order by, for people; None: no order."""
    on_dead: str | None = None
    """With an order: `wait` or `skip`, what is behind a dead letter."""
    about: str | None = None
    """The first line of its docstring; None: it has none."""
    retry_base_s: float | None = None
    """The longest wait after its first failure; it doubles with each further one."""
    retry_max_delay_s: float | None = None
    """The longest wait after any failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorRecord:
    """A registered processor with the counts of its jobs."""

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
    schedule: ScheduleRecord | None
    """When a periodic one is due; None: it runs for events that senders send."""
    breaker: BreakerRecord | None = None
    """Whether its target is down; None: it has no breaker."""
    ordered_by: str | None = None
    """What its jobs are kept in order by; None: no order."""
    on_dead: str | None = None
    """With an order, what becomes of the jobs behind a dead letter: they `wait`, or `skip` it."""
    behind: int = 0
    """Of those that wait: jobs behind another of their key."""
    blocked_keys: int = 0
    """Keys whose jobs wait behind a dead letter."""
    at_least: tuple[str, ...] = ()
    """Which of these counts there may be more of: not all jobs were counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownProcessor(Registered):
    """A processor as it was registered last, and whether it is paused."""

    registered_at: datetime
    """When a worker that has it started last."""
    paused_at: datetime | None
    paused_by: str | None
    pause_reason: str | None
    schedule: ScheduleRecord | None
    """When a periodic one is due; None: it runs for events that senders send."""
    breaker: BreakerRecord | None = None
    """Whether its target is down; None: it has no breaker."""


_REGISTER = statement(
    """
    INSERT INTO ingest.processors (name, types, queue, batch, threads, max_attempts, timeout_s,
                            registered_at, ordered_by, on_dead, about, retry_base_s,
                            retry_max_delay_s)
    VALUES (:name, CAST(:types AS jsonb), :queue, :batch, :threads, :max_attempts, :timeout_s,
            now(), :ordered_by, :on_dead, :about, :retry_base_s, :retry_max_delay_s)
    ON CONFLICT (name) DO UPDATE
    SET types = excluded.types, queue = excluded.queue, batch = excluded.batch,
        threads = excluded.threads, max_attempts = excluded.max_attempts,
        timeout_s = excluded.timeout_s, registered_at = excluded.registered_at,
        ordered_by = excluded.ordered_by, on_dead = excluded.on_dead, about = excluded.about,
        retry_base_s = excluded.retry_base_s, retry_max_delay_s = excluded.retry_max_delay_s
    """
)


def register(connection: Connection, registered: Sequence[Registered]) -> None:
    """Record the processors of a worker; a pause stays."""
    for processor in sorted(registered, key=lambda processor: processor.name):
        connection.execute(
            _REGISTER,
            {
                "name": processor.name,
                "types": json.dumps(processor.types),
                "queue": processor.queue,
                "batch": processor.batch,
                "threads": processor.threads,
                "max_attempts": processor.max_attempts,
                "timeout_s": processor.timeout_s,
                "ordered_by": processor.ordered_by,
                "on_dead": processor.on_dead,
                "about": processor.about,
                "retry_base_s": processor.retry_base_s,
                "retry_max_delay_s": processor.retry_max_delay_s,
            },
        )


# Counted in the small indexes of waiting, running and dead jobs.
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
           coalesce(held.running, 0) AS running, coalesce(lost.dead, 0) AS dead,
           p.ordered_by, p.on_dead
    FROM ingest.processors p
    LEFT JOIN waiting ON waiting.processor = p.name
    LEFT JOIN held ON held.processor = p.name
    LEFT JOIN lost ON lost.processor = p.name
    ORDER BY p.name
    """
)


_REGISTERED = statement(
    """
    SELECT name, types, queue, batch, threads, max_attempts, timeout_s, registered_at, paused_at,
           paused_by, pause_reason, ordered_by, on_dead
    FROM ingest.processors ORDER BY name
    """
)


def all_of_them(
    connection: Connection, *, counted: Unfinished | None = None
) -> list[ProcessorRecord]:
    """Return every processor that was ever registered, by name, with all its unfinished jobs, or
    with those that were `counted`."""
    rows = connection.execute(_ALL if counted is None else _REGISTERED).mappings()
    periodic = schedules.records(connection)
    known_breakers = breakers.records(connection)
    lines = ordering.lines(connection)
    return [
        ProcessorRecord(
            **{**row, "types": tuple(row["types"])} | _counts(row["name"], counted, lines),
            schedule=periodic.get(row["name"]),
            breaker=known_breakers.get(row["name"]),
        )
        for row in rows
    ]


def _counts(processor: str, counted: Unfinished | None, lines: Lines) -> dict[str, Any]:
    counts: dict[str, Any] = {} if counted is None else dict(counted.of(processor))
    at_least = lines.at_least | (frozenset() if counted is None else counted.at_least)
    return {
        **counts,
        "behind": lines.behind.get(processor, 0),
        "blocked_keys": lines.blocked_keys.get(processor, 0),
        "at_least": tuple(sorted(at_least)),
    }


_ONE = statement(
    """
    SELECT name, types, queue, batch, threads, max_attempts, timeout_s, about, retry_base_s,
           retry_max_delay_s, registered_at, paused_at, paused_by, pause_reason, ordered_by, on_dead
    FROM ingest.processors WHERE name = :name
    """
)


def one(connection: Connection, name: str) -> KnownProcessor:
    """Return a processor.

    Raises:
        NotFound: no worker has registered it.
    """
    if "\0" in name:  # no text of PostgreSQL has it
        raise _unknown(name)
    row = connection.execute(_ONE, {"name": name}).mappings().one_or_none()
    if row is None:
        raise _unknown(name)
    schedule = schedules.records(connection).get(name)
    breaker = breakers.records(connection).get(name)
    return KnownProcessor(
        **{**row, "types": tuple(row["types"])}, schedule=schedule, breaker=breaker
    )


_TYPES = statement("SELECT name, types FROM ingest.processors")


def types(connection: Connection) -> dict[str, tuple[str, ...]]:
    """Return the types that each processor handles."""
    return {row.name: tuple(row.types) for row in connection.execute(_TYPES)}


_PRESENT_QUEUES = statement("SELECT name, queue FROM ingest.processors")


def present_queues(connection: Connection) -> dict[str, str]:
    """Return the queue of each processor, as last registered."""
    return {row.name: row.queue for row in connection.execute(_PRESENT_QUEUES)}


_QUEUES = statement("SELECT DISTINCT queue FROM ingest.processors")


def queues(connection: Connection) -> list[str]:
    """Return the queues that the processors use."""
    return list(connection.execute(_QUEUES).scalars())


_PAUSE = statement(
    """
    UPDATE ingest.processors
    SET paused_at = coalesce(paused_at, now()), paused_by = :by, pause_reason = :reason
    WHERE name = :name
    """
)


def pause(connection: Connection, name: str, *, by: str, reason: str | None) -> None:
    """Pause a processor: from the next claim on its jobs wait.

    Raises:
        NotFound: no worker has registered it.
    """
    _update_one(connection, _PAUSE, name, by=by, reason=reason)


_IS_PAUSED = statement(
    "SELECT 1 FROM ingest.processors WHERE name = :name AND paused_at IS NOT NULL"
)


def is_paused(connection: Connection, name: str) -> bool:
    """Return whether a processor is paused."""
    return connection.execute(_IS_PAUSED, {"name": name}).scalar() is not None


_RESUME = statement(
    "UPDATE ingest.processors SET paused_at = NULL, paused_by = NULL, pause_reason = NULL"
    " WHERE name = :name"
)


def resume(connection: Connection, name: str) -> None:
    """Resume a processor; its jobs are dispatched within a sweep of the relay.

    Raises:
        NotFound: no worker has registered it.
    """
    _update_one(connection, _RESUME, name)


_PAUSE_CHANGES = statement(
    f"""
    SELECT name, paused_at IS NOT NULL OR name = ANY({breakers.OPEN}) AS closed
    FROM ingest.processors
    WHERE paused_at IS NOT NULL OR parked OR name = ANY({breakers.OPEN})
    ORDER BY name FOR UPDATE
    """
)


def pause_changes(connection: Connection) -> tuple[list[str], list[str]]:
    """Return the processors that are paused or whose breaker is open, and the others that still
    have parked jobs.

    Both are locked until the transaction ends, so that none is paused or resumed while its jobs are
    moved. A breaker that opens or closes meanwhile is followed by the next look.
    """
    rows = connection.execute(_PAUSE_CHANGES).all()
    return [row.name for row in rows if row.closed], [row.name for row in rows if not row.closed]


_MARK_UNPARKED = statement(
    """
    UPDATE ingest.processors SET parked = false
    WHERE name = ANY(CAST(:names AS text[])) AND NOT EXISTS (
        SELECT FROM ingest.jobs WHERE hinted_until = 'infinity' AND jobs.processor = processors.name
          AND NOT EXISTS (SELECT FROM ingest.parked
                          WHERE parked.processor = jobs.processor AND parked.queue = jobs.queue)
    )
    """
)


def mark_unparked(connection: Connection, names: Sequence[str]) -> None:
    """Record of those of `names` without parked jobs that they have none."""
    connection.execute(_MARK_UNPARKED, {"names": list(names)})


def _update_one(connection: Connection, statement: object, name: str, **values: str | None) -> None:
    result = connection.execute(statement, {"name": name, **values})  # type: ignore[call-overload]
    if result.rowcount == 0:
        raise _unknown(name)


def _unknown(name: str) -> NotFound:
    return NotFound(f"No worker has registered a processor {name}.", reason="not_found")
