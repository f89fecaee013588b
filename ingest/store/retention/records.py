"""Removing what is no event: duplicates of removed events, refusals, counts, the audit log, and
groups of failures."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, TextClause

from ingest.ids import first_id
from ingest.store.retention import progress, turns
from ingest.store.retention.progress import Position
from ingest.store.sql import statement

_DUPLICATES = statement(
    """
    WITH page AS MATERIALIZED (
        SELECT delivery, event FROM ingest.duplicates
        WHERE delivery > :after AND delivery < :bound ORDER BY delivery LIMIT :limit
    ), removed AS (
        DELETE FROM ingest.duplicates WHERE delivery = ANY(ARRAY(
            SELECT delivery FROM page
            WHERE (SELECT true FROM ingest.events WHERE id = page.event LIMIT 1) IS NULL
        ))
        RETURNING 1
    )
    SELECT (SELECT delivery FROM page ORDER BY delivery DESC LIMIT 1) AS last,
           (SELECT count(*) FROM removed) AS removed
    """
)


def remove_duplicates(connection: Connection, *, before: datetime, limit: int) -> int | None:
    """Remove duplicates older than `before` of events that are gone, a batch.

    Return how many; None: the pass has ended, or another process is at it.
    """
    if not turns.take(connection):
        return None
    since = progress.position(connection, progress.DUPLICATES)
    bounds = {"after": since.removed_to, "bound": first_id(before), "limit": limit}
    row = connection.execute(_DUPLICATES, bounds).one()
    progress.record(
        connection,
        progress.DUPLICATES,
        removed=row.removed,
        to=Position(removed_to=row.last) if row.last else Position(),
        has_ended=row.last is None,
    )
    return None if row.last is None else int(row.removed)


# What a parked job failed with would be counted anew as soon as it is gone.
NOT_PARKED = """
    NOT EXISTS (
        SELECT FROM ingest.jobs
        WHERE jobs.processor = g.processor AND hinted_until = 'infinity'
    )
"""
# What was muted is not to be told of because it was forgotten.
OLD_FAILURE = "last_seen < :before AND state <> 'muted'"
FORGOTTEN_FAILURE = f"""
    {OLD_FAILURE} AND NOT EXISTS (
        SELECT FROM ingest.jobs
        WHERE jobs.state = 'dead' AND discarded_at IS NULL AND jobs.processor = g.processor
    ) AND {NOT_PARKED}
"""

Remove = Callable[[Connection, datetime, int], int]
"""Removes rows older than a moment, at most so many; returns how many."""


def _deletes(sql: str) -> Remove:
    query: TextClause = statement(sql)

    def remove(connection: Connection, before: datetime, limit: int) -> int:
        return connection.execute(query, {"before": before, "limit": limit}).rowcount

    return remove


_remove_samples = _deletes(
    """
    DELETE FROM ingest.refusals WHERE (reason, slot) IN (
        SELECT reason, slot FROM ingest.refusals WHERE at < :before ORDER BY reason LIMIT :limit
    )
    """
)
_remove_refusal_counts = _deletes(
    """
    DELETE FROM ingest.refusal_counts WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM ingest.refusal_counts WHERE minute < :before ORDER BY minute LIMIT :limit
    ))
    """
)
_remove_activity = _deletes(
    """
    DELETE FROM ingest.activity WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM ingest.activity WHERE minute < :before ORDER BY minute LIMIT :limit
    ))
    """
)
_remove_activity_sums = _deletes(
    """
    DELETE FROM ingest.activity_sums WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM ingest.activity_sums
        WHERE begins < :before ORDER BY span_s, begins LIMIT :limit
    ))
    """
)
# Actions are in the order of their time. A bulk action goes once it has ended; a failed one can be
# resumed, so it stays.
_remove_actions = _deletes(
    """
    DELETE FROM ingest.actions WHERE at < :before AND id = ANY(ARRAY(
        SELECT id FROM ingest.actions ORDER BY id LIMIT :limit
    ))
    """
)
_remove_replays = _deletes(
    """
    WITH ended AS MATERIALIZED (
        SELECT id FROM ingest.replays
        WHERE status IN ('finished', 'cancelled') AND finished_at < :before AND NOT taking_back
        ORDER BY id LIMIT :limit
    ), forgotten AS (
        DELETE FROM ingest.taken_back WHERE replay = ANY(ARRAY(SELECT id FROM ended))
    )
    DELETE FROM ingest.replays WHERE id = ANY(ARRAY(SELECT id FROM ended))
    """
)

# The lock reads a row's condition anew. A row that another transaction has locked is being counted
# or changed, so it stays.
_remove_failures = _deletes(
    f"""
    WITH gone AS MATERIALIZED (
        SELECT id FROM ingest.failure_groups g WHERE {FORGOTTEN_FAILURE} ORDER BY id LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ), notes AS (
        DELETE FROM ingest.failure_notes WHERE failure = ANY(ARRAY(SELECT id FROM gone))
    ), counts AS (
        DELETE FROM ingest.failure_counts WHERE failure = ANY(ARRAY(SELECT id FROM gone))
    ), releases AS (
        DELETE FROM ingest.failure_releases WHERE failure = ANY(ARRAY(SELECT id FROM gone))
    )
    DELETE FROM ingest.failure_groups WHERE id = ANY(ARRAY(SELECT id FROM gone))
    """
)


def _remove_refusals(connection: Connection, before: datetime, limit: int) -> int:
    removed = _remove_samples(connection, before, limit)
    return removed + _remove_refusal_counts(connection, before, limit)


def _remove_counts(connection: Connection, before: datetime, limit: int) -> int:
    removed = _remove_activity(connection, before, limit)
    return removed + _remove_activity_sums(connection, before, limit)


def _remove_audit(connection: Connection, before: datetime, limit: int) -> int:
    removed = _remove_actions(connection, before, limit)
    return removed + _remove_replays(connection, before, limit)


REMOVERS = {
    progress.REFUSALS: _remove_refusals,
    progress.ACTIVITY: _remove_counts,
    progress.AUDIT: _remove_audit,
    progress.FAILURES: _remove_failures,
}


def remove(connection: Connection, kind: str, *, before: datetime, limit: int) -> int | None:
    """Remove a batch of a kind in `REMOVERS` that is older than `before`.

    Return how many; None: nothing older is left, or another process is at it.
    """
    if not turns.take(connection):
        return None
    removed = REMOVERS[kind](connection, before, limit)
    progress.record(connection, kind, removed=removed, has_ended=removed == 0)
    return removed or None
