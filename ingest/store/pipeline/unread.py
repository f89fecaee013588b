"""Jobs whose key nobody has read: of their order, or of their limits."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, TextClause

from ingest.store import arrays
from ingest.store.sql import statement


class UnreadJob(NamedTuple):
    """A waiting job whose key nobody has read, with its event."""

    id: int
    attempt: int
    event: UUID
    source: str
    event_id: str
    type: str
    received_at: datetime
    body: bytes | None
    body_key: str | None


def selection(is_read: str) -> TextClause:
    """Return the statement that selects those of `:ids` that wait, and of which a condition on the
    job `j` does not hold."""
    return statement(
        f"""
    SELECT j.id, j.attempt, j.event, e.source, e.event_id, e.type, e.received_at, d.body,
           d.body_key
    FROM ingest.jobs j
    CROSS JOIN LATERAL (
        SELECT source, event_id, type, received_at FROM ingest.events
        WHERE id BETWEEN j.event AND j.event ORDER BY id LIMIT 1
    ) AS e
    LEFT JOIN LATERAL (
        SELECT body, body_key FROM ingest.deliveries WHERE id = j.event LIMIT 1
    ) AS d ON true
    WHERE j.id = ANY(CAST(:ids AS bigint[])) AND j.state IN ('pending', 'retrying')
      AND ({is_read}) IS NOT TRUE
    ORDER BY j.id
    """
    )


def select(connection: Connection, selected: TextClause, job_ids: Sequence[int]) -> list[UnreadJob]:
    """Return the unread of `job_ids` by a `selection`."""
    rows = connection.execute(selected, {"ids": arrays.literal(job_ids)})
    return [UnreadJob(*row) for row in rows]
