"""Counts of all deliveries, events and jobs."""

from dataclasses import dataclass

from sqlalchemy import Connection

from ingest.store.sql import statement


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryCounts:
    """Counts of deliveries. `accepted` were answered 200 and include duplicates."""

    accepted: int
    rejected: int
    duplicates: int
    conflicts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventCounts:
    """Counts of events. `unhandled` have no processor."""

    total: int
    unhandled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCounts:
    """Counts of jobs by state."""

    pending: int
    running: int
    retrying: int
    succeeded: int
    dead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """All counts, at one moment."""

    deliveries: DeliveryCounts
    events: EventCounts
    jobs: JobCounts


# Triggers (ingest.store.triggers) count the tables that only grow. The rest is small, or is counted
# in small indexes. One statement gives all counts at one moment.
_COUNTS = statement(
    """
    WITH grown AS (
        SELECT coalesce(sum(rows) FILTER (WHERE counted = 'events'), 0) AS events,
               coalesce(sum(rows) FILTER (WHERE counted = 'duplicates'), 0) AS duplicates,
               coalesce(sum(rows) FILTER (WHERE counted = 'jobs'), 0) AS jobs,
               coalesce(sum(rows) FILTER (WHERE counted = 'unhandled'), 0) AS unhandled
        FROM ingest.totals
    ), waiting AS (
        SELECT count(*) FILTER (WHERE state = 'pending') AS pending,
               count(*) FILTER (WHERE state = 'retrying') AS retrying
        FROM ingest.jobs WHERE due_at IS NOT NULL
    ), held AS (
        SELECT count(*) AS running FROM ingest.jobs WHERE lease_until IS NOT NULL
    ), lost AS (
        SELECT (SELECT count(*) FROM ingest.jobs WHERE state = 'dead' AND discarded_at IS NULL)
             + (SELECT count(*) FROM ingest.jobs WHERE discarded_at IS NOT NULL) AS dead
    )
    SELECT grown.events, grown.duplicates, grown.unhandled,
           (SELECT count(*) FROM ingest.duplicates WHERE conflict) AS conflicts,
           (SELECT count(*) FROM ingest.unadmitted WHERE replay IS NULL) AS unadmitted,
           (SELECT count(*) FROM ingest.deliveries WHERE rejected IS NOT NULL) AS rejected,
           waiting.pending, held.running, waiting.retrying, lost.dead,
           grown.jobs - waiting.pending - waiting.retrying - held.running - lost.dead AS succeeded
    FROM grown, waiting, held, lost
    """
)


def read(connection: Connection) -> Stats:
    """Return all counts. Accepted deliveries are counted in the ledger, which outlives bodies."""
    counted = connection.execute(_COUNTS).mappings().one()
    row = {name: int(number) for name, number in counted.items()}  # sums are numeric
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
