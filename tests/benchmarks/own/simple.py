"""Writes one row an event."""

from sqlalchemy import Connection, text

from tests.benchmarks.own import KEEP
from workers import Event, processor

_KEEP = text(KEEP)


@processor("message.received", name="simple")
def keep(event: Event, db: Connection) -> None:
    """Keep the message."""
    db.execute(_KEEP, {**event.data, "event_id": event.event_id})
