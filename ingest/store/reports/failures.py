"""Jobs that fail now, grouped by processor, kind of error and where it was raised."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, TextClause

from ingest.ids import first_id
from ingest.store.sql import statement
from ingest.store.tally import in_time

EXAMINED = 2_000
"""How many dead and how many retrying jobs, the newest, a page groups at most."""
FIRST = 100
"""So many of each are always examined. How long they take tells how many more there is time for."""
BUDGET_S = 0.02
"""Seconds for those, as long as most of them take in memory; from the disk 2,000 of each take a
second."""
EVENTS_BUDGET_S = 0.01
"""And for finding the events of one group among them."""
REJECTED_EXAMINED = 5_000
TREND_SPANS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureGroup:
    """Jobs that are dead or retrying and whose last attempts failed in the same way."""

    processor: str
    error_type: str
    place: str
    """The module and the function that the error was raised in; empty: there is no traceback."""
    raised_at: str | None
    """The last frame of the example's traceback, as Python spells it; None: there is none."""
    jobs: int
    dead: int
    first_seen: datetime
    last_seen: datetime
    trend: tuple[int, ...]
    """How many failed last in each of `TREND_SPANS` equal spans up to now, the oldest first."""
    example: UUID
    """The newest event of the group."""
    message: str | None
    """The error message of the example."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """The groups, the largest first."""

    groups: tuple[FailureGroup, ...]
    examined: int
    is_whole: bool
    """Whether all failing jobs were examined; otherwise the newest were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Deliveries with a valid signature that are not events, by reason."""

    reason: str
    deliveries: int
    first_seen: datetime
    last_seen: datetime
    example: UUID


RAISED_AT = "nullif(split_part(split_part(a.traceback, '  File ', -1), E'\\n', 1), '')"
"""The last frame of an attempt `a`: `"/app/orders.py", line 12, in total`."""
ERROR_TYPE = "coalesce(a.error_type, a.outcome)"
PLACE = f"coalesce(a.place, regexp_replace({RAISED_AT}, ', line [0-9]+', ''), '')"
"""Where an attempt `a` failed, without line number. Older code kept nothing but the traceback."""
FAILED = "a.outcome NOT IN ('snoozed', 'released')"
"""The condition that an attempt `a` which did not succeed spends one."""

# Tracebacks are read where an attempt has no place, and of the examples. A row without a group says
# whether there are more jobs where none of these fails.
_GROUPS = statement(
    f"""
    WITH dead AS MATERIALIZED (
        SELECT id, event, processor, state, attempt FROM ingest.jobs
        WHERE state = 'dead' AND discarded_at IS NULL
        ORDER BY event DESC OFFSET :skip LIMIT :limit
    ), retrying AS MATERIALIZED (
        SELECT id, event, processor, state, attempt FROM ingest.jobs
        WHERE due_at IS NOT NULL AND state = 'retrying'
        ORDER BY queue, due_at OFFSET :skip LIMIT :limit
    ), failing AS (
        SELECT * FROM dead UNION ALL SELECT * FROM retrying
    ), grouped AS (
        SELECT f.processor, {ERROR_TYPE} AS error_type, {PLACE} AS place,
               width_bucket(extract(epoch FROM a.finished_at),
                            extract(epoch FROM CAST(:since AS timestamptz)),
                            extract(epoch FROM CAST(:now AS timestamptz)), :spans) AS span,
               count(*) AS jobs, count(*) FILTER (WHERE f.state = 'dead') AS dead,
               min(a.finished_at) AS first_seen, max(a.finished_at) AS last_seen,
               (array_agg(f.event ORDER BY f.event DESC))[1] AS example,
               (array_agg(f.id ORDER BY f.event DESC))[1] AS job,
               (array_agg(f.attempt ORDER BY f.event DESC))[1] AS attempt
        FROM failing f JOIN ingest.attempts a ON a.job = f.id AND a.number = f.attempt
        WHERE {FAILED}
        GROUP BY 1, 2, 3, 4
    )
    SELECT g.*, a.error_message AS message, {RAISED_AT} AS raised_at,
           (SELECT count(*) FROM dead) = :limit OR (SELECT count(*) FROM retrying) = :limit
               AS is_cut
    FROM (SELECT true) AS once LEFT JOIN (
        grouped g JOIN ingest.attempts a ON a.job = g.job AND a.number = g.attempt
    ) ON true
    """
)


def groups(
    connection: Connection, *, now: datetime, period: timedelta = timedelta(days=1)
) -> Failures:
    """Group failing jobs; the trend covers `period`. Snoozed and released jobs do not fail."""
    times = {"since": now - period, "now": now, "spans": TREND_SPANS}
    rows: list[Any] = []
    is_cut = False
    for read in _in_time(connection, _GROUPS, times, budget_s=BUDGET_S):
        rows += [row for row in read if row.processor is not None]
        is_cut = read[0].is_cut
        if not is_cut:
            break
    largest_first = sorted(_by_group(rows), key=lambda group: (-group.jobs, group.processor))
    return Failures(
        groups=tuple(largest_first),
        examined=sum(row.jobs for row in rows),
        is_whole=not is_cut,
    )


def _in_time(
    connection: Connection, query: TextClause, parameters: Mapping[str, Any], *, budget_s: float
) -> Iterator[Sequence[Any]]:
    """Return what a query finds among the first failing jobs, then among as many more as there is
    time for. It takes `skip` and `limit` besides its `parameters`."""

    def read(skip: int, limit: int) -> Sequence[Any]:
        return connection.execute(query, {**parameters, "skip": skip, "limit": limit}).all()

    return in_time(read, first=FIRST, most=EXAMINED + 1, budget_s=budget_s)


# Of events that fail more than once in one way, one is enough.
_EVENTS = statement(
    f"""
    WITH dead AS MATERIALIZED (
        SELECT id, event, attempt, processor FROM ingest.jobs
        WHERE state = 'dead' AND discarded_at IS NULL
        ORDER BY event DESC OFFSET :skip LIMIT :limit
    ), retrying AS MATERIALIZED (
        SELECT id, event, attempt, processor FROM ingest.jobs
        WHERE due_at IS NOT NULL AND state = 'retrying'
        ORDER BY queue, due_at OFFSET :skip LIMIT :limit
    )
    SELECT DISTINCT f.event
    FROM (SELECT * FROM dead UNION ALL SELECT * FROM retrying) AS f
    JOIN ingest.attempts a ON a.job = f.id AND a.number = f.attempt
    WHERE f.processor = :processor AND {ERROR_TYPE} = :error_type AND {PLACE} = :place AND {FAILED}
    ORDER BY f.event DESC LIMIT :wanted
    """
)


def events(
    connection: Connection, processor: str, error_type: str, place: str, *, limit: int
) -> list[UUID]:
    """Return the newest events that fail in one way, of the failing jobs that there is time for."""
    about = {"processor": processor, "error_type": error_type, "place": place, "wanted": limit}
    failing: set[UUID] = set()
    for read in _in_time(connection, _EVENTS, about, budget_s=EVENTS_BUDGET_S):
        failing.update(row.event for row in read)
        if len(failing) >= limit:
            break
    return sorted(failing, reverse=True)[:limit]


_REJECTED = statement(
    """
    WITH newest AS (
        SELECT id, received_at, rejected FROM ingest.deliveries
        WHERE rejected IS NOT NULL AND id >= CAST(:since AS uuid)
        ORDER BY id DESC LIMIT :limit
    )
    SELECT rejected AS reason, count(*) AS deliveries, min(received_at) AS first_seen,
           max(received_at) AS last_seen, (array_agg(id ORDER BY id DESC))[1] AS example
    FROM newest GROUP BY rejected ORDER BY count(*) DESC
    """
)


def rejected(
    connection: Connection, *, since: datetime | None = None, limit: int = REJECTED_EXAMINED
) -> list[Rejected]:
    """Group the newest `limit` rejected deliveries, of all time or those since then."""
    first = UUID(int=0) if since is None else first_id(since)
    rows = connection.execute(_REJECTED, {"limit": limit, "since": first}).mappings()
    return [Rejected(**row) for row in rows]


def _by_group(rows: Iterable[Any]) -> list[FailureGroup]:
    parts: dict[tuple[str, str, str], list[Any]] = {}
    for row in rows:
        parts.setdefault((row.processor, row.error_type, row.place), []).append(row)
    return [_group(*key, group) for key, group in parts.items()]


def _group(processor: str, error_type: str, place: str, parts: list[Any]) -> FailureGroup:
    newest = max(parts, key=lambda part: part.example)
    trend = [0] * TREND_SPANS
    for part in parts:
        if 1 <= part.span <= TREND_SPANS:
            trend[part.span - 1] += part.jobs
    return FailureGroup(
        processor=processor,
        error_type=error_type,
        place=place,
        raised_at=newest.raised_at,
        jobs=sum(part.jobs for part in parts),
        dead=sum(part.dead for part in parts),
        first_seen=min(part.first_seen for part in parts),
        last_seen=max(part.last_seen for part in parts),
        trend=tuple(trend),
        example=newest.example,
        message=newest.message,
    )
