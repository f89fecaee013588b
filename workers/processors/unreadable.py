"""Counting the values that were there and could not be read, by processor and field."""

from sqlalchemy import Connection

from ingest.store.pipeline import metrics
from ingest.store.pipeline.metrics import UNREADABLE, Note
from workers.processors.fields import Unreadable


def note(db: Connection, processor: str, unreadable: Unreadable) -> None:
    """Add to the counts of the current minute, in the transaction of the rows; a replay counts
    again."""
    metrics.record(
        db,
        [
            Note(what=UNREADABLE, label=f"{processor}.{name}", count=count)
            for name, count in unreadable.items()
        ],
    )
