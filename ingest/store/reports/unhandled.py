"""Events that no processor handled."""

from sqlalchemy import Connection

from ingest.store.sql import statement

MOST = 10_000


def by_type(connection: Connection, *, most: int = MOST) -> dict[str, int]:
    """Return how many of the newest unhandled events, up to `most`, are of each type."""
    return {row.type: row.events for row in connection.execute(_BY_TYPE, {"most": most})}


_BY_TYPE = statement(
    """
    SELECT e.type, count(*) AS events
    FROM (SELECT event FROM ingest.unhandled ORDER BY event DESC LIMIT :most) newest
    JOIN ingest.events e ON e.id = newest.event
    GROUP BY e.type
    """
)
