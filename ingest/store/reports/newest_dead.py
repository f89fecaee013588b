"""Why the newest dead letter of each processor failed."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection

from ingest.store.reports.failures import ERROR_TYPE
from ingest.store.sql import statement

LOOKED_THROUGH = 500
"""Dead letters, the newest: a processor that has none among them is left out."""


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
        ORDER BY event DESC LIMIT :limit
    ) d JOIN ingest.attempts a ON a.job = d.id AND a.number = d.attempt
    ORDER BY d.processor, d.event DESC
    """
)


def by_processor(connection: Connection) -> dict[str, NewestDead]:
    """Return the newest dead letter of each processor that has one among the newest."""
    rows = connection.execute(_NEWEST, {"limit": LOOKED_THROUGH}).mappings()
    return {row["processor"]: NewestDead(**row) for row in rows}
