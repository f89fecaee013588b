"""Copies: events that operators made of others, and the one way in which they are stored.

A copy is a delivery like any other: the writer's statement stores it, and admission makes an event
and jobs of it. Its link to its origin and the entry in the audit log are of the same statement, so
that there is none without the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from ingest import queues
from ingest.store.encryption import gate
from ingest.store.engine import WriterConnection
from ingest.store.pipeline import deliveries
from ingest.store.pipeline.deliveries import Also, Delivery
from ingest.store.reports import audit_log
from ingest.store.reports.audit_log import Author
from ingest.store.sql import statement

MOST = 50
"""Copies of an event that are listed."""
ACTION = "resend"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A copy, and who made it of what."""

    number: UUID
    event: UUID
    origin: UUID
    at: datetime
    by: str
    reason: str | None
    is_stored: bool
    """Whether there is an event at the other end: the origin of a copy, or a copy that is
    admitted."""


_INSERT = """copied AS (
    INSERT INTO ingest.copies (number, event, origin, by, reason)
    VALUES (%b::uuid, %b::uuid, %b::uuid, %b::text, %b::text)
)"""


async def insert(
    connection: WriterConnection,
    delivery: Delivery,
    *,
    number: UUID,
    origin: UUID,
    by: Author,
    reason: str | None,
) -> None:
    """Store a copy, its link and the entry in the audit log; the relay dispatches it at once.

    Raises:
        psycopg.errors.UniqueViolation: there is a copy of that number; nothing was stored.
        psycopg.Error: nothing was stored, or nobody knows.
        UnfitDatabase: the server does not write to disk, or the body cannot be encrypted yet.
    """
    await gate.begin_writing(connection)
    recorded = audit_log.also(by=by, action=ACTION, target=f"{origin}", reason=reason)
    link = (number, delivery.id, origin, by.name, reason)
    also = Also(f"{_INSERT}, {recorded.sql}", (*link, *recorded.values))
    await deliveries.insert(
        connection, [delivery], queue=queues.REPLAY, dispatch_grace_s=0.0, also=also
    )


_OF_NUMBER = statement("SELECT event, origin FROM ingest.copies WHERE number = :number")
_COLUMNS = "copies.number, copies.event, copies.origin, copies.at, copies.by, copies.reason"
_MADE_FROM = statement(
    f"""
    SELECT {_COLUMNS}, EXISTS (
        SELECT FROM ingest.events WHERE id = copies.origin
    ) AS is_stored
    FROM ingest.copies WHERE event = :event
    """
)
_MADE_OF = statement(
    f"""
    SELECT {_COLUMNS}, EXISTS (
        SELECT FROM ingest.events WHERE id = copies.event
    ) AS is_stored
    FROM ingest.copies WHERE origin = :event ORDER BY at DESC, number LIMIT {MOST}
    """
)
# Copies of copies too: each was made of what the one before it holds.
_ALL_MADE_OF = statement(
    """
    WITH RECURSIVE made (event) AS (
        SELECT event FROM ingest.copies WHERE origin = ANY(CAST(:events AS uuid[]))
        UNION
        SELECT copies.event FROM made JOIN ingest.copies ON copies.origin = made.event
    )
    SELECT event FROM made ORDER BY event
    """
)


def of_number(connection: Connection, number: UUID) -> tuple[UUID, UUID] | None:
    """Return the copy of a number and its origin; None: there is none."""
    row = connection.execute(_OF_NUMBER, {"number": number}).one_or_none()
    return None if row is None else (row.event, row.origin)


def origin_of(connection: Connection, event: UUID) -> Copy | None:
    """Return what an event was made of; None: it is no copy."""
    row = connection.execute(_MADE_FROM, {"event": event}).mappings().one_or_none()
    return None if row is None else Copy(**row)


def of_event(connection: Connection, event: UUID) -> list[Copy]:
    """Return the newest copies of an event."""
    return [Copy(**row) for row in connection.execute(_MADE_OF, {"event": event}).mappings()]


def made_of(connection: Connection, events: Sequence[UUID]) -> list[UUID]:
    """Return all copies of some events, and the copies of those."""
    return list(connection.execute(_ALL_MADE_OF, {"events": list(events)}).scalars())
