"""The running processes: each reports every few seconds; a worker's jobs tell what it runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from ingest.store.encryption.opening import keys_of
from ingest.store.sql import statement

ALIVE_FOR = timedelta(seconds=20)
"""A process that was not seen for longer is presumed dead: four reports are missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """A process; its id is never used again."""

    id: str
    kind: str
    """`receiver`, `worker`, `relay` or `console`."""
    host: str
    pid: int
    version: str
    queues: tuple[str, ...] | None = None
    """A worker's: the queues that it consumes."""
    processors: tuple[str, ...] | None = None
    """A worker's: the processors that it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRecord:
    """A process as it was last seen."""

    id: str
    kind: str
    host: str
    pid: int
    version: str
    started_at: datetime
    seen_at: datetime
    alive: bool
    works_on: str | None
    """The processor that a worker runs now."""
    jobs: int
    """How many jobs it holds."""
    since: datetime | None
    """When it claimed the oldest of them."""
    lacks: list[str]
    """What its database role lacks, each as a predicate (ingest.store.privileges)."""
    body_keys: list[str] | None
    """The ids of the keys of bodies that it has; None: it is of a release that knows of none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """A worker that has a processor, as it was last seen."""

    id: str
    host: str
    pid: int
    version: str
    started_at: datetime
    seen_at: datetime
    alive: bool
    queues: list[str]
    """The queues that it consumes."""


_UPSERT = statement(
    """
    INSERT INTO ingest.processes (id, kind, host, pid, version, started_at, seen_at, queues,
                                  processors, lacks, remembers, body_keys)
    VALUES (:id, :kind, :host, :pid, :version, now(), now(), CAST(:queues AS text[]),
            CAST(:processors AS text[]), CAST(:lacks AS text[]), true,
            CAST(:body_keys AS text[]))
    ON CONFLICT (id) DO UPDATE SET seen_at = now(), lacks = excluded.lacks
    """
)


def upsert(connection: Connection, process: ProcessIdentity, *, lacks: Sequence[str] = ()) -> None:
    """Record that a process is alive, what its role lacks, and which keys of bodies it has."""
    connection.execute(
        _UPSERT,
        {
            "id": process.id,
            "kind": process.kind,
            "host": process.host,
            "pid": process.pid,
            "version": process.version,
            "queues": None if process.queues is None else list(process.queues),
            "processors": None if process.processors is None else list(process.processors),
            "lacks": list(lacks),
            "body_keys": list(keys_of(connection).ids),
        },
    )


_REMOVE = statement("DELETE FROM ingest.processes WHERE id = :id")


def remove(connection: Connection, process: ProcessIdentity) -> None:
    """Record that a process ends cleanly."""
    connection.execute(_REMOVE, {"id": process.id})


_PRUNE = statement("DELETE FROM ingest.processes WHERE seen_at < now() - CAST(:age AS interval)")


def prune(connection: Connection, *, older_than: timedelta) -> None:
    """Delete the processes that were not seen for that long."""
    connection.execute(_PRUNE, {"age": older_than})


_SERVED = statement(
    """
    SELECT DISTINCT processors, queues FROM ingest.processes
    WHERE kind = 'worker' AND seen_at > now() - CAST(:alive_for AS interval)
    """
)


def served(connection: Connection) -> frozenset[tuple[str, str]] | None:
    """Return the pairs of processor and queue whose jobs a worker takes now.

    Return None if that is unknown: no worker is alive, or one of an earlier release does not report
    it.
    """
    rows = connection.execute(_SERVED, {"alive_for": ALIVE_FOR}).all()
    if not rows or any(row.processors is None or row.queues is None for row in rows):
        return None
    return frozenset(
        (processor, queue) for row in rows for processor in row.processors for queue in row.queues
    )


# A worker that has not reported itself for a while counts until its row is pruned: it may be
# frozen, and go on.
_OLDER_WORKER = statement(
    """
    SELECT id FROM ingest.processes WHERE kind = 'worker' AND NOT remembers
    ORDER BY seen_at DESC LIMIT 1
    """
)


def older_worker(connection: Connection) -> str | None:
    """Return a worker of a release that knows neither removed nor erased events, if one may run."""
    worker: str | None = connection.execute(_OLDER_WORKER).scalar()
    return worker


_ALL = statement(
    """
    SELECT p.id, p.kind, p.host, p.pid, p.version, p.started_at, p.seen_at, p.lacks, p.body_keys,
           p.seen_at > now() - CAST(:alive_for AS interval) AS alive,
           held.works_on, coalesce(held.jobs, 0) AS jobs, held.since
    FROM ingest.processes p
    LEFT JOIN (
        SELECT worker, min(processor) AS works_on, count(*) AS jobs, min(started_at) AS since
        FROM ingest.jobs WHERE lease_until IS NOT NULL GROUP BY worker
    ) AS held ON held.worker = p.id
    ORDER BY p.kind, p.host, p.started_at, p.id
    """
)


def all_of_them(connection: Connection) -> list[ProcessRecord]:
    """Return the running processes, and those that stopped lately without reporting it."""
    rows = connection.execute(_ALL, {"alive_for": ALIVE_FOR})
    return [ProcessRecord(**row) for row in rows.mappings()]


_WORKERS_WITH = statement(
    """
    SELECT id, host, pid, version, started_at, seen_at,
           seen_at > now() - CAST(:alive_for AS interval) AS alive, coalesce(queues, '{}') AS queues
    FROM ingest.processes
    WHERE kind = 'worker' AND :processor = ANY(processors)
    ORDER BY host, started_at, id
    """
)


def workers_with(connection: Connection, processor: str) -> list[WorkerRecord]:
    """Return the workers that have a processor, and those of them that stopped lately without
    reporting it."""
    parameters = {"processor": processor, "alive_for": ALIVE_FOR}
    rows = connection.execute(_WORKERS_WITH, parameters).mappings()
    return [WorkerRecord(**row) for row in rows]
