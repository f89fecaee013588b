"""Resolving by themselves the groups of failures of which nothing is left to be done."""

from sqlalchemy import Connection

from ingest.store.failures.folding import JOBS_EXAMINED
from ingest.store.reports.failures import ERROR_TYPE, FAILED, PLACE
from ingest.store.sql import statement

_ASKED = statement(
    """
    SELECT true FROM ingest.failure_groups
    WHERE state IN ('open', 'acknowledged', 'muted') AND resolves_itself LIMIT 1
    """
)

# A job is of the group that its last failed attempt is of, also while a replay of it waits or runs.
# If there are more jobs than are looked at, nothing is resolved: one of the others may be of it.
_SETTLE = statement(
    f"""
    WITH dead AS MATERIALIZED (
        SELECT id, processor, attempt FROM ingest.jobs
        WHERE state = 'dead' AND discarded_at IS NULL ORDER BY event DESC LIMIT :limit
    ), waiting AS MATERIALIZED (
        SELECT id, processor, attempt FROM ingest.jobs WHERE due_at IS NOT NULL LIMIT :limit
    ), running AS MATERIALIZED (
        SELECT id, processor, attempt FROM ingest.jobs WHERE lease_until IS NOT NULL LIMIT :limit
    ), unfinished AS MATERIALIZED (
        SELECT f.processor, a.error_type, a.place
        FROM (
            SELECT * FROM dead UNION ALL SELECT * FROM waiting WHERE attempt > 0
            UNION ALL SELECT * FROM running WHERE attempt > 1
        ) AS f
        CROSS JOIN LATERAL (
            SELECT {ERROR_TYPE} AS error_type, {PLACE} AS place FROM ingest.attempts a
            WHERE a.job = f.id AND a.outcome <> 'succeeded' AND {FAILED}
              AND NOT (a.outcome = 'discarded' AND a.error_type IS NULL) -- by an operator
            ORDER BY a.number DESC LIMIT 1
        ) AS a
    )
    UPDATE ingest.failure_groups
    SET state = 'resolved', resolved_at = now(), resolved_in = NULL, changed_at = now(),
        changed_by = NULL, resolves_itself = false, reopened_at = NULL, muted_until = NULL,
        muted_to = NULL
    WHERE state IN ('open', 'acknowledged', 'muted') AND resolves_itself
      AND (processor, error_type, place) NOT IN (
          SELECT processor, error_type, place FROM unfinished
      )
      AND (SELECT count(*) FROM dead) < :limit AND (SELECT count(*) FROM waiting) < :limit
      AND (SELECT count(*) FROM running) < :limit
      AND NOT EXISTS (SELECT FROM ingest.ungrouped)
    RETURNING id
    """
)


def settle(connection: Connection, *, limit: int = JOBS_EXAMINED) -> list[int]:
    """Resolve the groups that are to resolve themselves and of which no job fails, waits to be
    repeated, or is being repeated; return their numbers.

    The caller has taken its turn (`folding.take_turn`). While more than `limit` jobs are dead, wait
    or run, nothing is resolved.
    """
    if not connection.execute(_ASKED).scalar():
        return []
    return list(connection.execute(_SETTLE, {"limit": limit}).scalars())
