"""Events that no processor handled."""

from sqlalchemy import Connection

from ingest.store.sql import statement


def by_type(connection: Connection) -> dict[str, int]:
    """Return how many of the newest 10,000 unhandled events are of each type."""
    return {row.type: row.events for row in connection.execute(_BY_TYPE)}


_BY_TYPE = statement(
    """
    SELECT e.type, count(*) AS events
    FROM (SELECT event FROM ingest.unhandled ORDER BY event DESC LIMIT 10000) newest
    JOIN ingest.events e ON e.id = newest.event
    GROUP BY e.type
    """
)
