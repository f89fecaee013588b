"""Counts of everything."""

from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryCounts:
    """Deliveries. `accepted` were answered 200, duplicates among them."""

    accepted: int
    rejected: int
    duplicates: int
    conflicts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventCounts:
    """Events. `unhandled` have no processor."""

    total: int
    unhandled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCounts:
    """Jobs by state."""

    pending: int
    running: int
    retrying: int
    succeeded: int
    dead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """All of it, at one moment."""

    deliveries: DeliveryCounts
    events: EventCounts
    jobs: JobCounts


def read(connection: Connection) -> Stats:
    """Count. Accepted deliveries are counted in the ledger, which outlives their bodies."""
    row = connection.execute(_COUNTS).mappings().one()
    return Stats(
        deliveries=DeliveryCounts(
            accepted=row["events"] + row["duplicates"] + row["unadmitted"],
            rejected=row["rejected"],
            duplicates=row["duplicates"],
            conflicts=row["conflicts"],
        ),
        events=EventCounts(total=row["events"], unhandled=row["unhandled"]),
        jobs=JobCounts(
            **{state: row[state] for state in ("pending", "running", "retrying")},
            succeeded=row["succeeded"],
            dead=row["dead"],
        ),
    )


_COUNTS = text(
    """
    SELECT
        (SELECT count(*) FROM events) AS events,
        (SELECT count(*) FROM duplicates) AS duplicates,
        (SELECT count(*) FROM duplicates WHERE conflict) AS conflicts,
        (SELECT count(*) FROM unadmitted WHERE replay IS NULL) AS unadmitted,
        (SELECT count(*) FROM deliveries WHERE rejected IS NOT NULL) AS rejected,
        (SELECT count(*) FROM events
         WHERE NOT EXISTS (SELECT FROM jobs WHERE event = events.id)) AS unhandled,
        states.*
    FROM (
        SELECT count(*) FILTER (WHERE state = 'pending') AS pending,
               count(*) FILTER (WHERE state = 'running') AS running,
               count(*) FILTER (WHERE state = 'retrying') AS retrying,
               count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
               count(*) FILTER (WHERE state = 'dead') AS dead
        FROM jobs
    ) AS states
    """
)
