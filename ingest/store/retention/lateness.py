"""How far behind retention is: for how long the oldest row that may go should have been gone.

Each statement goes along an index from its beginning, and reads a bounded number of rows. Old
events that stay (a dead letter that nobody discarded) stand there, too: if there are more of them
than are looked at, what is behind them is not seen. A group of failures stays while its processor
has a dead letter: if there are more of these than are looked at, no group is told of.
"""

from datetime import datetime, timedelta

from sqlalchemy import Connection

from ingest.ids import first_id
from ingest.store.retention import progress
from ingest.store.retention.ages import Ages
from ingest.store.retention.events import FINISHED
from ingest.store.retention.records import NOT_PARKED, OLD_FAILURE
from ingest.store.sql import statement

EXAMINED = 2_000
"""Events, duplicates, bulk actions, groups of failures and dead letters that are looked at, at
most."""

# A day of the memory goes as a whole.
_OLDEST = {
    progress.EVENTS: f"""
        SELECT received_at FROM (
            SELECT id, received_at FROM ingest.events WHERE id < :bound ORDER BY id LIMIT :limit
        ) AS e
        WHERE {FINISHED} ORDER BY id LIMIT 1
        """,
    progress.DUPLICATES: """
        SELECT received_at FROM (
            SELECT delivery, event, received_at FROM ingest.duplicates WHERE delivery < :bound
            ORDER BY delivery LIMIT :limit
        ) AS d
        WHERE (SELECT true FROM ingest.events WHERE id = d.event LIMIT 1) IS NULL
        ORDER BY delivery LIMIT 1
        """,
    progress.PAST_EVENTS: """
        SELECT CAST(day + 1 AS timestamp) AT TIME ZONE 'UTC'
        FROM ingest.past_events ORDER BY day LIMIT 1
        """,
    progress.REFUSALS: """
        SELECT least((SELECT min(at) FROM ingest.refusals),
                     (SELECT minute FROM ingest.refusal_counts ORDER BY minute LIMIT 1))
        """,
    progress.ACTIVITY: "SELECT minute FROM ingest.activity ORDER BY minute LIMIT 1",
    progress.AUDIT: """
        SELECT least(
            (SELECT at FROM ingest.actions ORDER BY id LIMIT 1),
            (SELECT min(finished_at) FROM (
                SELECT status, finished_at, taking_back FROM ingest.replays ORDER BY id LIMIT :limit
             ) AS first
             WHERE status IN ('finished', 'cancelled') AND NOT taking_back)
        )
        """,
    progress.FAILURES: f"""
        WITH dead AS MATERIALIZED (
            SELECT processor FROM ingest.jobs
            WHERE state = 'dead' AND discarded_at IS NULL LIMIT :limit
        )
        SELECT min(last_seen) FROM (
            SELECT processor, last_seen FROM ingest.failure_groups
            WHERE {OLD_FAILURE} ORDER BY last_seen LIMIT :limit
        ) AS g
        WHERE processor NOT IN (SELECT processor FROM dead) AND {NOT_PARKED}
          AND (SELECT count(*) FROM dead) < :limit
        """,
}


def read(connection: Connection, ages: Ages, *, now: datetime) -> dict[str, float]:
    """Return by kind for how many seconds the oldest row should have been gone; 0: there is none.

    Kinds that are kept for ever are left out.
    """
    spans = {
        progress.EVENTS: ages.events,
        progress.DUPLICATES: ages.events,
        progress.PAST_EVENTS: ages.past_events,
        progress.REFUSALS: ages.refusals,
        progress.ACTIVITY: ages.activity,
        progress.AUDIT: ages.audit,
        progress.FAILURES: ages.failures,
    }
    return {
        kind: _late_s(connection, kind, now - span)
        for kind, span in spans.items()
        if span is not None
    }


def _late_s(connection: Connection, kind: str, before: datetime) -> float:
    parameters = {"before": before, "bound": first_id(before), "limit": EXAMINED}
    oldest = connection.execute(statement(_OLDEST[kind]), parameters).scalar()
    late = timedelta(0) if oldest is None else before - oldest
    return max(0.0, late.total_seconds())
