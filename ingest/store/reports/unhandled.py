"""Events that no processor handled."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection

from ingest.store.sql import statement
from ingest.store.tally import in_time

MOST = 10_000
FIRST = 100
"""So many are always read, and others while there is time."""


class Newest(NamedTuple):
    """How many of the newest unhandled events are of each type."""

    types: Mapping[str, int]
    is_whole: bool
    """Whether there are no others."""


def by_type(connection: Connection) -> dict[str, int]:
    """Return how many of the newest unhandled events, up to `MOST`, are of each type."""
    return _read(connection, 0, MOST)


def newest(connection: Connection, *, most: int, budget_s: float) -> Newest:
    """Return how many of the newest unhandled events are of each type, up to `most`, and as many as
    there is time for beyond the first."""
    counts: Counter[str] = Counter()
    is_whole = False

    def read(skip: int, limit: int) -> bool:
        types = _read(connection, skip, limit)
        counts.update(types)
        return sum(types.values()) < limit

    for is_whole in in_time(read, first=FIRST, most=most, budget_s=budget_s):
        if is_whole:
            break
    return Newest(types=counts, is_whole=is_whole)


def _read(connection: Connection, skip: int, limit: int) -> dict[str, int]:
    rows = connection.execute(_BY_TYPE, {"skip": skip, "limit": limit})
    return {row.type: row.events for row in rows}


_BY_TYPE = statement(
    """
    SELECT e.type, count(*) AS events
    FROM (
        SELECT event FROM ingest.unhandled ORDER BY event DESC OFFSET :skip LIMIT :limit
    ) newest
    JOIN ingest.events e ON e.id = newest.event
    GROUP BY e.type
    """
)
