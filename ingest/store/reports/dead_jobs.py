"""What dead jobs were about, as far as it may leave the database: no id of a sender's, no body."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from ingest.store import arrays
from ingest.store.sql import statement

_OF = statement(
    """
    SELECT j.id, j.processor, e.type
    FROM unnest(CAST(:ids AS bigint[])) AS asked (id)
    CROSS JOIN LATERAL (
        SELECT id, processor, event FROM ingest.jobs WHERE id = asked.id LIMIT 1
    ) AS j
    CROSS JOIN LATERAL (
        SELECT type FROM ingest.events WHERE id = j.event LIMIT 1
    ) AS e
    """
)


class DeadJob(NamedTuple):
    """A job that is dead."""

    id: int
    processor: str
    type: str
    """Of its event."""


def of(connection: Connection, jobs: Sequence[int]) -> list[DeadJob]:
    """Return what the jobs were about."""
    return [DeadJob(*row) for row in connection.execute(_OF, {"ids": arrays.literal(jobs)})]
