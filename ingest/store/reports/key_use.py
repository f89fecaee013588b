"""How often each key of a source has signed a delivery that was stored, and when it did last.

Receivers count this every few seconds (ingest.receiver.metrics), beside their answers.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row

from ingest.store.pipeline.metrics import KEY
from ingest.store.sql import statement

PERIOD = timedelta(days=30)
"""How far back keys are looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUse:
    """The deliveries that a key signed."""

    source: str
    key_id: str
    last_used_at: datetime
    """To the minute for two hours, then to the quarter of an hour, after a day to the hour."""
    hour: int
    """Deliveries of the last hour."""
    day: int
    month: int
    """Deliveries of the last 30 days."""


_USES = statement(
    """
    SELECT label, max(minute) AS last_used_at,
           coalesce(sum(count) FILTER (WHERE minute > :hour), 0) AS hour,
           coalesce(sum(count) FILTER (WHERE minute > :day), 0) AS day,
           sum(count) AS month
    FROM ingest.activity WHERE what = :what AND minute > :month
    GROUP BY label ORDER BY label
    """
)


def label(source: str, key_id: str) -> str:
    """Return the label that a key is counted under."""
    return f"{source} {key_id}"


def read(connection: Connection, *, now: datetime) -> list[KeyUse]:
    """Return the keys that signed a delivery in the last 30 days, by source and key."""
    rows = connection.execute(
        _USES,
        {
            "what": KEY,
            "hour": now - timedelta(hours=1),
            "day": now - timedelta(days=1),
            "month": now - PERIOD,
        },
    )
    return [_use(row.label, row) for row in rows]


def _use(counted: str, row: Row[Any]) -> KeyUse:
    source, _, key_id = counted.partition(" ")
    return KeyUse(
        source=source,
        key_id=key_id,
        last_used_at=row.last_used_at,
        hour=int(row.hour),
        day=int(row.day),
        month=int(row.month),
    )
