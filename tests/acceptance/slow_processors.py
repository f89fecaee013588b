"""A user's module: a slow processor with a queue of its own beside a fast one."""

import time
from pathlib import Path

from sqlalchemy import Connection, text

from workers import Event, processor

_RECORD = text("INSERT INTO effects (what, event) VALUES (:what, :event)")


@processor("order.created", name="fast")
def fast(event: Event, db: Connection) -> None:
    """Takes no time."""
    db.execute(_RECORD, {"what": "fast", "event": event.id})


@processor("order.created", name="slow", queue="crm", timeout_s=300)
def slow(event: Event, db: Connection) -> None:
    """Takes until somebody lets it end."""
    while not Path("released").exists():
        time.sleep(0.05)
    db.execute(_RECORD, {"what": "slow", "event": event.id})
