"""Deliveries that were refused, and that their senders do not send again."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from ingest.store.pipeline.metrics import POSSIBLE_LOSS
from ingest.store.sql import statement

WINDOW = timedelta(days=3)
"""What is older is told no more. GitHub, for one, has it no more."""
RECOVERED = "recover"
"""The action by which an operator recovers everything that a source missed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PossibleLoss:
    """What one source may have lost."""

    source: str
    deliveries: int
    since: datetime
    """The minute of the first report of one."""


# A loss in the minute of a recovery may be later than it, so it is told until the next recovery.
_READ = statement(
    f"""
    WITH recovered AS (
        SELECT target, date_trunc('minute', max(at)) AS at FROM ingest.actions
        WHERE action = :recovered GROUP BY target
    )
    SELECT label AS source, CAST(sum(count) AS bigint) AS deliveries, min(minute) AS since
    FROM ingest.activity LEFT JOIN recovered ON target = label
    WHERE what = '{POSSIBLE_LOSS}' AND minute >= :since AND minute >= coalesce(at, '-infinity')
    GROUP BY label ORDER BY label
    """
)


def read(connection: Connection, *, now: datetime) -> list[PossibleLoss]:
    """Return what each source may have lost lately and since it was recovered, if anything."""
    parameters = {"recovered": RECOVERED, "since": now - WINDOW}
    return [PossibleLoss(**row) for row in connection.execute(_READ, parameters).mappings()]
