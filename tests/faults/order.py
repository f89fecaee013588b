"""Holds the order in which events were worked on against that in which they were received."""

from dataclasses import dataclass

from sqlalchemy import Engine, text

_MARGIN = "1 second"
"""A commit gets its time a moment before others see it."""

_PAIRS = text("SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM lines GROUP BY line)")
_OVERLAPS = text(
    """
    SELECT count(*) FROM (
        SELECT ended, lead(began) OVER (PARTITION BY line ORDER BY began) AS next_began FROM lines
    ) AS neighbours
    WHERE next_began < ended
    """
)
# What was received earlier and was committed later may come later, since nobody knew of it.
_SWAPPED = text(
    f"""
    WITH placed AS (
        SELECT l.*, pg_xact_commit_timestamp(d.xmin) AS committed, d.xmin AS transaction
        FROM lines l JOIN deliveries d ON d.id = l.event
    )
    SELECT count(*) FROM placed AS first JOIN placed AS second USING (line)
    WHERE first.event < second.event AND first.began > second.began
      AND (first.transaction = second.transaction
           OR first.committed + interval '{_MARGIN}' < second.committed)
    """
)
_UNTOLD = text(
    """
    SELECT count(*) FROM jobs
    WHERE processor = 'in_order' AND state = 'succeeded'
      AND NOT EXISTS (SELECT FROM lines WHERE lines.event = jobs.event)
    """
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """What became of the lines of keys."""

    pairs: int
    """Neighbours in a line that were looked at."""
    problems: tuple[str, ...]


def check(engine: Engine) -> Lines:
    """Return what is wrong with the order of the events worked on so far, in sentences."""
    with engine.connect() as connection:
        pairs = connection.execute(_PAIRS).scalar_one()
        wrong = {
            "events were worked on while the one before in their line was": _OVERLAPS,
            "events were worked on before one received earlier": _SWAPPED,
            "jobs with an order have succeeded without their effect": _UNTOLD,
        }
        counts = {what: connection.execute(query).scalar_one() for what, query in wrong.items()}
    return Lines(
        pairs=int(pairs),
        problems=tuple(f"{count} {what}" for what, count in counts.items() if count),
    )
