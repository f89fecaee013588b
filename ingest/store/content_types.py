"""The content type that a stored body was sent with."""

from uuid import UUID

from sqlalchemy import Connection

from ingest.store.sql import statement

DEFAULT = "application/json"

_READ = statement(
    """
    SELECT header ->> 1 FROM ingest.deliveries
    CROSS JOIN LATERAL jsonb_array_elements(headers) AS header
    WHERE id = :id AND header ->> 0 = 'content-type'
    LIMIT 1
    """
)


def of(connection: Connection, delivery: UUID) -> str:
    """Return the content type of a delivery, as its sender sent it; that of JSON, where the source
    keeps none."""
    return connection.execute(_READ, {"id": delivery}).scalar() or DEFAULT
