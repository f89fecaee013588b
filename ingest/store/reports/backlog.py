"""What is not done yet: how much, and since when."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from ingest.ids import received_at
from ingest.store.sql import statement

_EXAMINED = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Oldest:
    """The oldest of what waits."""

    unadmitted: datetime | None
    """Received then, and no worker has admitted it."""
    job: datetime | None
    """The event of this job was received then; it waits, retries or runs."""


_NOT_PAUSED = (
    "processor <> ALL(ARRAY(SELECT name FROM ingest.processors WHERE paused_at IS NOT NULL))"
)


_NOT_PARKED = "(processor, queue) NOT IN (SELECT processor, queue FROM ingest.parked)"


_RESUMED = "ARRAY(SELECT name FROM ingest.processors WHERE parked AND paused_at IS NULL)"
"""The processors whose jobs the relay takes up again at its next sweep."""


# What was admitted leaves dead entries at the beginning of the index of `unadmitted`, each of which
# a search for the first live one would visit in the table: 44 ms for 150,000 that vacuum may not
# remove yet. Reading the table as it lies takes 7. The jobs are taken in the order of the indexes,
# so that no statistics lead to a table of ten million; what is parked is due at infinity. There is
# no min(uuid) before PostgreSQL 18.
_OLDEST = statement(
    f"""
    SELECT (SELECT min(received_at) FROM ingest.unadmitted WHERE replay IS NULL) AS unadmitted,
           (SELECT event FROM (
               (SELECT event FROM ingest.jobs WHERE due_at < 'infinity' AND replay IS NULL
                 AND {_NOT_PAUSED} AND {_NOT_PARKED}
                 ORDER BY queue, due_at LIMIT :limit)
               UNION ALL
               (SELECT event FROM ingest.jobs WHERE due_at = 'infinity' AND replay IS NULL
                 AND processor = ANY({_RESUMED}) AND {_NOT_PARKED}
                 ORDER BY processor, queue LIMIT :limit)
               UNION ALL
               (SELECT event FROM ingest.jobs WHERE lease_until IS NOT NULL AND replay IS NULL
                ORDER BY lease_until LIMIT :limit)
           ) AS unfinished ORDER BY event LIMIT 1) AS event
    """
)


def oldest(connection: Connection) -> Oldest:
    """Return when the oldest unfinished work was received, apart from replays and from what is
    parked or waits because its processor is paused. Of more than 50,000 waiting jobs, so many are
    looked at."""
    row = connection.execute(_OLDEST, {"limit": _EXAMINED}).one()
    return Oldest(
        unadmitted=row.unadmitted,
        job=received_at(row.event) if row.event else None,
    )
