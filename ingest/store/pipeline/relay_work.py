"""Whether a sweep of the relay would find anything."""

from sqlalchemy import Connection

from ingest.store.sql import statement

# One row of each, by an index where the table may be large: in the order in which the sweep itself
# would read it. What waits, is parked or is behind another has `due_at`.
_IS_THERE = statement(
    """
    SELECT coalesce(
        (SELECT true FROM ingest.unadmitted ORDER BY queue DESC, hint_at DESC LIMIT 1),
        (SELECT true FROM ingest.jobs WHERE due_at IS NOT NULL
         ORDER BY queue DESC, due_at DESC LIMIT 1),
        (SELECT true FROM ingest.jobs WHERE lease_until <= now() ORDER BY lease_until LIMIT 1),
        (SELECT true FROM ingest.ordered_jobs LIMIT 1),
        (SELECT true FROM ingest.limited_jobs WHERE NOT claimed LIMIT 1),
        (SELECT true FROM ingest.parked LIMIT 1),
        (SELECT true FROM ingest.schedules LIMIT 1),
        false
    )
    """
)


def is_there(connection: Connection) -> bool:
    """Return whether there is a delivery to be admitted, a job that waits, a lease that has ended,
    a job with an order, one in the line of a limit, something parked, or a periodic processor.

    Without any of them a sweep changes nothing that anybody waits for.
    """
    return bool(connection.execute(_IS_THERE).scalar_one())
