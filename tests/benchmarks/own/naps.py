"""Waits as long as a call to a CRM takes, then writes one row an event."""

import time

from sqlalchemy import Connection, text

from tests.benchmarks.own import KEEP
from workers import Event, processor

NAP_S = 0.02
THREADS = 20

_KEEP = text(KEEP)


@processor("message.received", name="naps", threads=THREADS)
def nap(event: Event, db: Connection) -> None:
    """Wait, and keep the message."""
    time.sleep(NAP_S)
    db.execute(_KEEP, {**event.data, "event_id": event.event_id})
