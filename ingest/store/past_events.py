"""The memory of events that retention has removed: enough to know their late duplicates.

A row is narrow, because it outlives its event by years. Instead of the source and the sender's id
it has 16 bytes of their SHA-256: with a thousand million rows, the chance that a new event has the
digest of any of them is 1 in 3·10²⁹, and nobody can choose an id to hit one. Of the fingerprint it
has 8 bytes. They decide only whether a duplicate is flagged as different, and are missed by chance
once in 1.8·10¹⁹ duplicates.
"""

from datetime import date
from uuid import UUID

from sqlalchemy import Connection

from ingest.store.sql import statement


def digest(source: str, event_id: str) -> str:
    """Return the SQL expression of an event's digest; the arguments are SQL too.

    A source has no space in its slug, so that no two pairs are spelled alike.
    """
    return f"substring(sha256(convert_to({source} || ' ' || {event_id}, 'UTF8')) FOR 16)"


def short(fingerprint: str) -> str:
    """Return the SQL expression of what is kept of a fingerprint."""
    return f"substring({fingerprint} FOR 8)"


def day(received_at: str) -> str:
    """Return the SQL expression of the day of receipt, in UTC."""
    return f"CAST({received_at} AT TIME ZONE 'UTC' AS date)"


_FORGET = statement(
    """
    DELETE FROM ingest.past_events WHERE digest = ANY(ARRAY(
        SELECT digest FROM ingest.past_events WHERE day < :before ORDER BY day LIMIT :limit
    ))
    """
)


def forget(connection: Connection, *, before: date, limit: int) -> int:
    """Forget up to `limit` of the events received before a day, oldest first; return how many.

    From then on a duplicate of one of them is a new event.
    """
    return connection.execute(_FORGET, {"before": before, "limit": limit}).rowcount


_IS_PAST = statement(
    """
    SELECT event FROM ingest.duplicates WHERE delivery = :delivery
      AND (SELECT true FROM ingest.events WHERE id = duplicates.event LIMIT 1) IS NULL
    """
)


def of_duplicate(connection: Connection, delivery: UUID) -> UUID | None:
    """Return the removed event that a delivery is a duplicate of; None: it is none of one."""
    event: UUID | None = connection.execute(_IS_PAST, {"delivery": delivery}).scalar()
    return event
