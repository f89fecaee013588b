"""Jobs that fail now, grouped by processor, kind of error and where it was raised."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from ingest.ids import first_id
from ingest.store.sql import statement

EXAMINED = 2_000
"""How many failing jobs, the newest, a page groups."""
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

# Tracebacks are read where an attempt has no place, and of the examples.
_GROUPS = statement(
    f"""
    WITH dead AS MATERIALIZED (
        SELECT id, event, processor, state, attempt FROM ingest.jobs
        WHERE state = 'dead' AND discarded_at IS NULL
        ORDER BY event DESC LIMIT :limit
    ), retrying AS MATERIALIZED (
        SELECT id, event, processor, state, attempt FROM ingest.jobs
        WHERE due_at IS NOT NULL AND state = 'retrying'
        LIMIT :limit
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
    FROM grouped g JOIN ingest.attempts a ON a.job = g.job AND a.number = g.attempt
    """
)


def groups(
    connection: Connection, *, now: datetime, period: timedelta = timedelta(days=1)
) -> Failures:
    """Group failing jobs; the trend covers `period`. Snoozed and released jobs do not fail."""
    rows = connection.execute(
        _GROUPS,
        {
            "limit": EXAMINED + 1,
            "since": now - period,
            "now": now,
            "spans": TREND_SPANS,
        },
    ).all()
    examined = sum(row.jobs for row in rows)
    largest_first = sorted(_by_group(rows), key=lambda group: (-group.jobs, group.processor))
    return Failures(
        groups=tuple(largest_first),
        examined=examined,
        is_whole=not rows or not rows[0].is_cut,
    )


# Of events that fail more than once in one way, one is enough.
_EVENTS = statement(
    f"""
    WITH dead AS MATERIALIZED (
        SELECT id, event, attempt, processor FROM ingest.jobs
        WHERE state = 'dead' AND discarded_at IS NULL
        ORDER BY event DESC LIMIT :examined
    ), retrying AS MATERIALIZED (
        SELECT id, event, attempt, processor FROM ingest.jobs
        WHERE due_at IS NOT NULL AND state = 'retrying'
        LIMIT :examined
    )
    SELECT DISTINCT f.event
    FROM (SELECT * FROM dead UNION ALL SELECT * FROM retrying) AS f
    JOIN ingest.attempts a ON a.job = f.id AND a.number = f.attempt
    WHERE f.processor = :processor AND {ERROR_TYPE} = :error_type AND {PLACE} = :place AND {FAILED}
    ORDER BY f.event DESC LIMIT :limit
    """
)


def events(
    connection: Connection, processor: str, error_type: str, place: str, *, limit: int
) -> list[UUID]:
    """Return the newest events that fail in one way, of the newest `EXAMINED` failing jobs."""
    parameters = {
        "processor": processor,
        "error_type": error_type,
        "place": place,
        "examined": EXAMINED,
        "limit": limit,
    }
    return list(connection.execute(_EVENTS, parameters).scalars())


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
            trend[part.span - 1] = part.jobs
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
