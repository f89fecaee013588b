"""Which events are here, by the names that their sender gives them."""

from collections.abc import Sequence

from sqlalchemy import Connection

from ingest.store import arrays, past_events
from ingest.store.sql import statement

# An event that retention has removed is known too. The unadmitted are few, unless no worker runs:
# then they are all read, once.
_KNOWN = statement(
    f"""
    SELECT event_id FROM ingest.events
    WHERE source = :source AND event_id = ANY (CAST(:ids AS text[]))
    UNION
    SELECT asked.id FROM unnest(CAST(:ids AS text[])) AS asked (id)
    WHERE (SELECT true FROM ingest.past_events
           WHERE digest = {past_events.digest(":source", "asked.id")} LIMIT 1)
    UNION
    SELECT event_id FROM ingest.unadmitted
    WHERE source = :source AND event_id = ANY (CAST(:ids AS text[]))
    """
)


def known(connection: Connection, source: str, event_ids: Sequence[str]) -> set[str]:
    """Return those of the event ids that a delivery of the source has, admitted or not."""
    parameters = {"source": source, "ids": arrays.literal(event_ids)}
    return set(connection.execute(_KNOWN, parameters).scalars())
