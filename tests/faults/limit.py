"""Holds how many events were worked on at once against the limit that their processor has."""

from sqlalchemy import Engine, text

from tests.faults.effects import LIMIT

# Of what was committed. The end is noted before the commit, so that nothing is counted too long.
_MOST_AT_ONCE = text(
    """
    SELECT coalesce(max(at_once), 0) FROM (
        SELECT sum(change) OVER (ORDER BY at, change) AS at_once FROM (
            SELECT began AS at, 1 AS change FROM holds
            UNION ALL
            SELECT ended, -1 FROM holds
        ) AS changes
    ) AS counted
    """
)
_UNTOLD = text(
    """
    SELECT count(*) FROM jobs
    WHERE processor = 'limited' AND state = 'succeeded'
      AND NOT EXISTS (SELECT FROM holds WHERE holds.event = jobs.event)
    """
)


def problems(engine: Engine) -> list[str]:
    """Return what is wrong with the limit so far, in sentences."""
    with engine.connect() as connection:
        most = connection.execute(_MOST_AT_ONCE).scalar_one()
        untold = connection.execute(_UNTOLD).scalar_one()
    found = []
    if most > LIMIT:
        found.append(f"{most} events were worked on at once, and {LIMIT} may be")
    if untold:
        found.append(f"{untold} jobs with a limit have succeeded without their effect")
    return found
