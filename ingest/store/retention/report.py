"""What each kind holds, what would go now, and what has gone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Connection

from ingest.ids import first_id
from ingest.store import partitions
from ingest.store.retention import obstacles, progress
from ingest.store.retention.ages import Ages
from ingest.store.retention.events import FINISHED
from ingest.store.retention.records import FORGOTTEN_FAILURE
from ingest.store.sql import statement

EXAMINED = 100_000
"""Of what is too old, the oldest so many rows are looked at; it takes about a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What there is of a kind."""

    kind: str
    age_days: int | None
    """None: it is kept for ever, or goes with the events."""
    rows: int
    """Exact for events, jobs, duplicates and small tables, otherwise PostgreSQL's estimate."""
    bytes: int
    """On disk, with indexes."""
    due: int | None
    """Rows that would go now, counted up to `EXAMINED`; None: it has no age."""
    removed: int
    """Rows, ever."""
    ended_at: datetime | None
    """When nothing too old was left last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bodies:
    """What there is of bodies and headers, which go by whole days."""

    age_days: int | None
    """None: they are kept for ever."""
    days: int
    """Days that are past and are kept."""
    oldest: date | None
    """The oldest of them."""
    next_on: date | None
    """When the oldest goes; in the past, if it is kept for its unfinished work."""
    bytes: int
    """On disk, with indexes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The state of retention."""

    obstacle: str | None
    """Why no event may be removed now, as a sentence."""
    kinds: tuple[Held, ...]
    bodies: Bodies


_TABLES = {
    progress.EVENTS: ("events", "unhandled"),
    progress.JOBS: ("jobs",),
    progress.ATTEMPTS: ("attempts",),
    progress.DUPLICATES: ("duplicates",),
    progress.PAST_EVENTS: ("past_events",),
    progress.REFUSALS: ("refusals", "refusal_counts"),
    progress.ACTIVITY: ("activity", "activity_sums"),
    progress.AUDIT: ("actions", "replays"),
    progress.FAILURES: ("failure_groups", "failure_notes", "failure_counts", "failure_releases"),
}
SMALL_BYTES = 1_000_000
"""The rows of a table up to this size are counted, in milliseconds: PostgreSQL's estimate may be of
a time when it was empty."""
# reltuples is -1 before the first analyze. Deliveries are partitions, and have no age here.
_SIZES = statement(
    """
    SELECT name, pg_total_relation_size(c.oid) AS bytes, pg_relation_size(c.oid) AS heap_bytes,
           greatest(reltuples, 0) AS estimate
    FROM unnest(CAST(:tables AS text[])) AS named (name)
    JOIN pg_class c ON c.oid = CAST(CAST('ingest.' || name AS text) AS regclass)
    """
)
_TOTAL = statement("SELECT sum(rows) FROM ingest.totals WHERE counted = CAST(:kind AS text)")


def _due(rows: str) -> str:
    return f"SELECT count(*) FROM ({rows}) AS due"


_DUE = {
    progress.EVENTS: _due(
        f"""
        SELECT FROM (
            SELECT id FROM ingest.events WHERE id < :bound ORDER BY id LIMIT :limit
        ) AS e WHERE {FINISHED}
        """
    ),
    progress.DUPLICATES: _due(
        """
        SELECT FROM (
            SELECT event FROM ingest.duplicates WHERE delivery < :bound
            ORDER BY delivery LIMIT :limit
        ) AS d
        WHERE (SELECT true FROM ingest.events WHERE id = d.event LIMIT 1) IS NULL
        """
    ),
    progress.PAST_EVENTS: _due(
        "SELECT FROM ingest.past_events WHERE day < CAST(:before AS date) LIMIT :limit"
    ),
    progress.REFUSALS: _due(
        """
        (SELECT FROM ingest.refusals WHERE at < :before LIMIT :limit)
        UNION ALL
        (SELECT FROM ingest.refusal_counts WHERE minute < :before LIMIT :limit)
        """
    ),
    progress.ACTIVITY: _due("SELECT FROM ingest.activity WHERE minute < :before LIMIT :limit"),
    progress.AUDIT: _due(
        """
        (SELECT FROM ingest.actions WHERE at < :before LIMIT :limit)
        UNION ALL
        (SELECT FROM ingest.replays WHERE status IN ('finished', 'cancelled')
         AND finished_at < :before LIMIT :limit)
        """
    ),
    progress.FAILURES: _due(
        f"SELECT FROM ingest.failure_groups g WHERE {FORGOTTEN_FAILURE} LIMIT :limit"
    ),
}


# Partitions are the leaves of `deliveries`.
_BODY_BYTES = statement(
    """
    SELECT coalesce(sum(pg_total_relation_size(relid)), 0)
    FROM pg_partition_tree(CAST('ingest.deliveries' AS regclass)) WHERE isleaf
    """
)


def read(connection: Connection, ages: Ages, *, body_age_days: int | None, now: datetime) -> Report:
    """Return the state of retention; `body_age_days` is the age of bodies, None: kept for ever."""
    spans = {
        progress.EVENTS: ages.events,
        progress.DUPLICATES: ages.events,
        progress.PAST_EVENTS: ages.past_events,
        progress.REFUSALS: ages.refusals,
        progress.ACTIVITY: ages.activity,
        progress.AUDIT: ages.audit,
        progress.FAILURES: ages.failures,
    }
    done = progress.read(connection)
    never = progress.Progress(kind="", removed=0, ended_at=None)
    held = []
    for kind, tables in _TABLES.items():
        span = spans.get(kind)
        rows, size = _size(connection, kind, tables)
        so_far = done.get(kind, never)
        held.append(
            Held(
                kind=kind,
                age_days=None if span is None else span.days,
                rows=rows,
                bytes=size,
                due=None if span is None else _count(connection, kind, now - span),
                removed=so_far.removed,
                ended_at=so_far.ended_at,
            )
        )
    obstacle = None if ages.events is None else obstacles.find(connection)
    return Report(
        obstacle=obstacle, kinds=tuple(held), bodies=_bodies(connection, body_age_days, now)
    )


def _size(connection: Connection, kind: str, tables: Sequence[str]) -> tuple[int, int]:
    """Return the rows of a kind and their bytes on disk."""
    sizes = connection.execute(_SIZES, {"tables": list(tables)}).all()
    rows = connection.execute(_TOTAL, {"kind": kind}).scalar()
    if rows is None:
        rows = sum(
            _rows(connection, size.name) if size.heap_bytes <= SMALL_BYTES else size.estimate
            for size in sizes
        )
    return int(rows), sum(int(size.bytes) for size in sizes)


def _rows(connection: Connection, table: str) -> int:
    return int(connection.execute(statement(f"SELECT count(*) FROM ingest.{table}")).scalar_one())


def _bodies(connection: Connection, age_days: int | None, now: datetime) -> Bodies:
    past = [day for day in partitions.days(connection) if day < now.date()]
    oldest = past[0] if past else None
    next_on = None
    if oldest is not None and age_days is not None:
        next_on = oldest + timedelta(days=age_days + 1)
    size = connection.execute(_BODY_BYTES).scalar_one()
    return Bodies(
        age_days=age_days, days=len(past), oldest=oldest, next_on=next_on, bytes=int(size)
    )


def _count(connection: Connection, kind: str, before: datetime) -> int:
    parameters = {"before": before, "bound": first_id(before), "limit": EXAMINED}
    query = statement(_DUE[kind])
    return int(connection.execute(query, parameters).scalar_one())
