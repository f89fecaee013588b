"""The age of the oldest unfinished work."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from ingest.ids import received_at
from ingest.store.pipeline.breakers import OPEN
from ingest.store.sql import statement

_EXAMINED = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Oldest:
    """When the oldest unfinished work was received."""

    unadmitted: datetime | None
    """Of the deliveries that no worker has admitted."""
    job: datetime | None
    """Of the events with a job that waits, retries or runs."""


_NOT_PAUSED = (
    "processor <> ALL(ARRAY(SELECT name FROM ingest.processors WHERE paused_at IS NOT NULL))"
    f" AND processor <> ALL({OPEN})"
)


_NOT_PARKED = "(processor, queue) NOT IN (SELECT processor, queue FROM ingest.parked)"


_RESUMED = (
    "ARRAY(SELECT name FROM ingest.processors WHERE parked AND paused_at IS NULL"
    f" AND name <> ALL({OPEN}))"
)
"""The processors whose jobs the relay unparks at its next sweep."""


# Admitted deliveries leave dead entries at the beginning of the index of `unadmitted`. A search for
# the first live entry would visit each of them in the table: 44 ms for 150,000 that vacuum may not
# remove yet. A sequential scan takes 7 ms. Jobs are read in the order of the indexes, so that no
# statistics lead to reading a table of ten million. Parked jobs are due at infinity. PostgreSQL has
# no min(uuid) before version 18.
_OLDEST = statement(
    f"""
    SELECT (SELECT min(received_at) FROM ingest.unadmitted WHERE replay IS NULL) AS unadmitted,
           (SELECT event FROM (
               (SELECT event FROM ingest.jobs WHERE due_at < 'infinity' AND replay IS NULL
                 AND {_NOT_PAUSED} AND {_NOT_PARKED}
                 ORDER BY queue, due_at LIMIT :limit)
               UNION ALL
               (SELECT event FROM ingest.jobs WHERE hinted_until = 'infinity' AND replay IS NULL
                 AND processor = ANY({_RESUMED}) AND {_NOT_PARKED}
                 ORDER BY processor, queue LIMIT :limit)
               UNION ALL
               (SELECT event FROM ingest.jobs WHERE lease_until IS NOT NULL AND replay IS NULL
                ORDER BY lease_until LIMIT :limit)
           ) AS unfinished ORDER BY event LIMIT 1) AS event
    """
)


def oldest(connection: Connection) -> Oldest:
    """Return when the oldest unfinished work was received.

    Replays, parked jobs and jobs of processors that are paused, or whose breaker is open, do not
    count. At most 50,000 waiting jobs are
    examined.
    """
    row = connection.execute(_OLDEST, {"limit": _EXAMINED}).one()
    return Oldest(
        unadmitted=row.unadmitted,
        job=received_at(row.event) if row.event else None,
    )
