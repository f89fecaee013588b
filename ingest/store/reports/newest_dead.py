"""Why the newest dead letter of each processor failed."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection

from ingest.store.reports.failures import ERROR_TYPE
from ingest.store.sql import statement
from ingest.store.tally import in_time

LOOKED_THROUGH = 500
"""Dead letters, the newest, at most: a processor that has none among them is left out."""
FIRST = 100
"""So many are always looked through, and others while there is time."""
BUDGET_S = 0.01
"""Seconds for those: all, if they are in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewestDead:
    """The newest dead letter of a processor, and its last error."""

    processor: str
    event: UUID
    error_type: str
    message: str | None


_NEWEST = statement(
    f"""
    SELECT DISTINCT ON (d.processor) d.processor, d.event, {ERROR_TYPE} AS error_type,
           a.error_message AS message
    FROM (
        SELECT id, event, processor, attempt FROM ingest.jobs
        WHERE state = 'dead' AND discarded_at IS NULL
        ORDER BY event DESC OFFSET :skip LIMIT :limit
    ) d JOIN ingest.attempts a ON a.job = d.id AND a.number = d.attempt
    ORDER BY d.processor, d.event DESC
    """
)


def by_processor(connection: Connection) -> dict[str, NewestDead]:
    """Return the newest dead letter of each processor that has one among the newest."""

    def read(skip: int, limit: int) -> dict[str, NewestDead]:
        rows = connection.execute(_NEWEST, {"skip": skip, "limit": limit}).mappings()
        return {row["processor"]: NewestDead(**row) for row in rows}

    newest: dict[str, NewestDead] = {}
    for older in in_time(read, first=FIRST, most=LOOKED_THROUGH, budget_s=BUDGET_S):
        newest = older | newest
    return newest
