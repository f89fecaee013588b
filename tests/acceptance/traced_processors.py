"""A user's module whose traces, and whose dead letters, are looked at."""

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, text

from workers import Event, processor

_RECORD = text("INSERT INTO effects (what, event) VALUES (:what, :event)")


@processor("order.created", name="records", max_attempts=3)
def records(event: Event, db: Connection) -> None:
    """Writes a phone number, bound and not, and fails while there is a file."""
    phone = event.data.get("phone", "")
    db.execute(_RECORD, {"what": phone, "event": event.id})
    db.execute(text(f"SELECT '{phone}' AS phone, 12345"))
    if Path("broken").exists():
        raise ValueError(f"cannot call {phone}")


@processor("order.created", name="queues", queue="apart")
def queued(event: Event, db: Connection) -> None:
    """Is dispatched to a queue of its own."""
    db.execute(_RECORD, {"what": "queued", "event": event.id})


@processor("contact.created", name="lists", batch=True)
def lists(events: Sequence[Event], db: Connection) -> None:
    """Takes many events at once."""
    db.execute(_RECORD, [{"what": "listed", "event": event.id} for event in events])
