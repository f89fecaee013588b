"""Counting failed attempts in their groups, and the changes of state that follow.

A worker only inserts the key of the attempt (`ungrouped`): the row of a group would be waited for
by all workers while everything fails. A relay takes these keys by the thousand, adds each group's
up, and writes a group once a batch. One relay at a time does so.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Connection

from ingest.store.failures import lifecycle, records
from ingest.store.failures.lifecycle import Seen
from ingest.store.failures.records import COLUMNS, SPAN, FailureRecord, Key
from ingest.store.reports.failures import ERROR_TYPE, FAILED, PLACE
from ingest.store.sql import statement

BATCH = 2_000
"""Attempts that one transaction counts."""
JOBS_EXAMINED = 5_000
"""Dead jobs, waiting ones and running ones that are looked through for a group, at most."""
# A lock number of the pipeline's own, after those of retention and erasure.
_TAKE_TURN = statement("SELECT pg_try_advisory_xact_lock(1953460321, 19)")


def take_turn(connection: Connection) -> bool:
    """Return whether this transaction alone counts; another relay may be at it."""
    return bool(connection.execute(_TAKE_TURN).scalar_one())


# A job or an attempt that retention has removed meanwhile is not counted.
_TAKE = statement(
    f"""
    WITH taken AS MATERIALIZED (
        DELETE FROM ingest.ungrouped WHERE (job, number) IN (
            SELECT job, number FROM ingest.ungrouped ORDER BY job, number LIMIT :limit
        )
        RETURNING job, number
    ), failed AS (
        SELECT (SELECT processor FROM ingest.jobs WHERE id = a.job) AS processor,
               {ERROR_TYPE} AS error_type, {PLACE} AS place, coalesce(a.release, '') AS release,
               a.job, a.number, a.started_at, a.finished_at
        FROM taken CROSS JOIN LATERAL (
            SELECT * FROM ingest.attempts
            WHERE attempts.job = taken.job AND attempts.number = taken.number LIMIT 1
        ) AS a
    )
    SELECT processor, error_type, place, release, date_bin(:span, finished_at, :origin) AS span,
           count(*) AS attempts, min(finished_at) AS first_seen, max(finished_at) AS last_seen,
           max(started_at) AS began,
           (array_agg(ARRAY[job, number] ORDER BY finished_at DESC))[1:1] AS newest,
           (SELECT count(*) FROM taken) AS taken
    FROM failed WHERE processor IS NOT NULL
    GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
    """
)
_ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """What one batch was."""

    attempts: int
    has_more: bool
    """Whether a whole batch was taken."""


def fold(connection: Connection, *, now: datetime, limit: int = BATCH) -> Folded:
    """Count up to `limit` attempts in their groups. The caller has taken its turn (`take_turn`)."""
    rows = connection.execute(_TAKE, {"limit": limit, "span": SPAN, "origin": _ORIGIN}).all()
    for key, parts in groupby(rows, lambda row: Key(row.processor, row.error_type, row.place)):
        _add(connection, key, list(parts), now)
    attempts = sum(row.attempts for row in rows)
    return Folded(attempts=attempts, has_more=bool(rows) and rows[0].taken >= limit)


_UPSERT = statement(
    f"""
    INSERT INTO ingest.failure_groups AS known
        (processor, error_type, place, first_seen, last_seen, attempts, job, number)
    VALUES (:processor, :error_type, :place, :first_seen, :last_seen, :attempts, :job, :number)
    ON CONFLICT (processor, error_type, place) DO UPDATE
    SET first_seen = least(known.first_seen, excluded.first_seen),
        last_seen = greatest(known.last_seen, excluded.last_seen),
        attempts = known.attempts + excluded.attempts,
        job = CASE WHEN excluded.last_seen < known.last_seen THEN known.job ELSE excluded.job END,
        number = CASE WHEN excluded.last_seen < known.last_seen THEN known.number
                      ELSE excluded.number END
    RETURNING {COLUMNS}
    """
)
_COUNT = statement(
    """
    INSERT INTO ingest.failure_counts AS known (failure, at, attempts)
    VALUES (:failure, :span, :attempts)
    ON CONFLICT (failure, at) DO UPDATE SET attempts = known.attempts + excluded.attempts
    """
)
_NOTE_RELEASE = statement(
    """
    INSERT INTO ingest.failure_releases AS known (failure, release, first_seen, last_seen, attempts)
    VALUES (:failure, :release, :first_seen, :last_seen, :attempts)
    ON CONFLICT (failure, release) DO UPDATE
    SET first_seen = least(known.first_seen, excluded.first_seen),
        last_seen = greatest(known.last_seen, excluded.last_seen),
        attempts = known.attempts + excluded.attempts
    """
)
_HAD_IT = statement(
    """
    SELECT release FROM ingest.failure_releases
    WHERE failure = :failure AND first_seen <= :at
    """
)


def _add(connection: Connection, key: Key, parts: list[Any], now: datetime) -> None:
    """Count attempts in a group, which is made if there is none, and change its state if they do
    so."""
    newest = max(parts, key=lambda part: part.last_seen)
    [(job, number)] = newest.newest
    row = connection.execute(
        _UPSERT,
        {
            **key._asdict(),
            "first_seen": min(part.first_seen for part in parts),
            "last_seen": newest.last_seen,
            "attempts": sum(part.attempts for part in parts),
            "job": job,
            "number": number,
        },
    )
    group = records.record(row.mappings().one())
    had_it = [] if group.resolved_in is None else _had_it(connection, group)
    for part in parts:
        values = {**part._asdict(), "failure": group.id}
        connection.execute(_COUNT, values)
        if part.release:
            connection.execute(_NOTE_RELEASE, values)
    changed = lifecycle.after(
        group,
        Seen(last_at=newest.last_seen, began=_began(parts)),
        had_it=had_it,
        now=now,
    )
    if changed != group:
        save(connection, changed)


def _began(parts: Iterable[Any]) -> Mapping[str, datetime]:
    began: dict[str, datetime] = {}
    for part in parts:
        began[part.release] = max(part.began, began.get(part.release, part.began))
    return began


def _had_it(connection: Connection, group: FailureRecord) -> list[str]:
    parameters = {"failure": group.id, "at": group.resolved_at}
    return list(connection.execute(_HAD_IT, parameters).scalars())


_SAVE = statement(
    """
    UPDATE ingest.failure_groups
    SET state = :state, assigned_to = :assigned_to, changed_at = :changed_at,
        changed_by = :changed_by, muted_until = :muted_until, muted_to = :muted_to,
        resolved_at = :resolved_at, resolved_in = :resolved_in,
        resolves_itself = :resolves_itself, reopened_at = :reopened_at
    WHERE id = :id
    """
)
_SAVED = (
    *("id", "state", "assigned_to", "changed_at", "changed_by", "muted_until", "muted_to"),
    *("resolved_at", "resolved_in", "resolves_itself", "reopened_at"),
)


def save(connection: Connection, group: FailureRecord) -> None:
    """Store what people and time change in a group. The caller's transaction has locked its row."""
    connection.execute(_SAVE, {name: getattr(group, name) for name in _SAVED})


# Attempts of workers of the release before, and those from before the groups were kept.
_ADOPT = statement(
    f"""
    WITH dead AS MATERIALIZED (
        SELECT id, processor, attempt FROM ingest.jobs
        WHERE state = 'dead' AND discarded_at IS NULL ORDER BY event DESC LIMIT :limit
    ), retrying AS MATERIALIZED (
        SELECT id, processor, attempt FROM ingest.jobs
        WHERE due_at IS NOT NULL AND state = 'retrying' LIMIT :limit
    ), failing AS (
        SELECT * FROM dead UNION ALL SELECT * FROM retrying
    )
    INSERT INTO ingest.ungrouped (job, number)
    SELECT a.job, a.number
    FROM failing f JOIN ingest.attempts a ON a.job = f.id AND a.number = f.attempt
    WHERE {FAILED} AND (f.processor, {ERROR_TYPE}, {PLACE}) NOT IN (
        SELECT processor, error_type, place FROM ingest.failure_groups
    )
    ON CONFLICT DO NOTHING
    """
)


def adopt(connection: Connection, *, limit: int = JOBS_EXAMINED) -> int:
    """Have the last attempts of failing jobs counted whose group nobody has recorded; return how
    many. The caller has taken its turn (`take_turn`)."""
    return connection.execute(_ADOPT, {"limit": limit}).rowcount


_UNMUTE = statement(
    """
    UPDATE ingest.failure_groups
    SET state = 'open', muted_until = NULL, changed_at = now(), changed_by = NULL
    WHERE state = 'muted' AND muted_until <= now()
    """
)
_FORGET_COUNTS = statement("DELETE FROM ingest.failure_counts WHERE at < :before")


def unmute(connection: Connection) -> int:
    """Open the groups that were muted until now; return how many."""
    return connection.execute(_UNMUTE).rowcount


def forget_counts(connection: Connection, *, now: datetime) -> int:
    """Remove counts that no page shows any more; return how many."""
    return connection.execute(_FORGET_COUNTS, {"before": now - records.COUNTS_KEPT}).rowcount
