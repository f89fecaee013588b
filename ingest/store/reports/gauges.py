"""The state of the tables, for metrics. Each statement reads a bounded number of index entries.

Waiting jobs, dead letters and unadmitted deliveries are counted up to `EXAMINED`, for each queue
where there are queues: then the count is a lower bound. So is the age of jobs, which is that of
those that are counted. The age of the backlog is not limited.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from ingest.ids import received_at
from ingest.store.pipeline import jobs
from ingest.store.pipeline.breakers import OPEN
from ingest.store.reports.heartbeats import ALIVE_FOR
from ingest.store.sql import statement

EXAMINED = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """The jobs of a processor in a queue."""

    processor: str
    queue: str
    pending: int
    retrying: int
    running: int
    oldest_at: datetime | None
    """When the event of the first of those that are counted was received; replays do not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """The state of the tables at one moment."""

    now: datetime
    """By the server's clock."""
    unadmitted: int
    unadmitted_since: datetime | None
    lanes: tuple[Lane, ...]
    parked: dict[tuple[str, str, str], int]
    """By processor, queue and reason."""
    dead: dict[str, int]
    """Dead letters by processor."""
    events: int
    unhandled: int
    processes: dict[str, int]
    """Live processes by kind."""

    def counts_all_of(self, queue: str) -> bool:
        """Return whether all waiting jobs of a queue are counted: there are fewer than are looked
        at."""
        waiting = (lane.pending + lane.retrying for lane in self.lanes if lane.queue == queue)
        return sum(waiting) < EXAMINED


# Counted from the newest on: the oldest are among rows that were admitted just now, whose pages a
# scan would write anew. The primary key holds the receipt. Entries of admitted deliveries at its
# beginning are passed quickly once their transactions are over.
_UNADMITTED = statement(
    """
    SELECT now() AS now,
           (SELECT count(*) FROM (
               SELECT FROM ingest.unadmitted
               WHERE replay IS NULL ORDER BY delivery DESC LIMIT :limit
           ) AS waiting) AS unadmitted,
           (SELECT received_at FROM ingest.unadmitted WHERE replay IS NULL
            ORDER BY delivery LIMIT 1) AS unadmitted_since
    """
)


# The oldest job is the one that was made first: to compare the ids of events takes twice as long as
# everything else here.
_LANES = statement(
    """
    SELECT lane.processor, lane.queue, pending, retrying, running, oldest.event AS oldest
    FROM (
        SELECT processor, queue,
               count(*) FILTER (WHERE state = 'pending') AS pending,
               count(*) FILTER (WHERE state = 'retrying') AS retrying,
               count(*) FILTER (WHERE state = 'running') AS running,
               min(id) FILTER (WHERE replay IS NULL) AS first
        FROM (
            SELECT waiting.* FROM unnest(CAST(:queues AS text[])) AS named (name)
            CROSS JOIN LATERAL (
                SELECT id, processor, queue, state, replay FROM ingest.jobs
                WHERE queue = named.name AND due_at IS NOT NULL AND due_at < 'infinity'
                ORDER BY due_at LIMIT :limit
            ) AS waiting
            UNION ALL
            (SELECT id, processor, queue, state, replay FROM ingest.jobs
             WHERE lease_until IS NOT NULL ORDER BY lease_until LIMIT :limit)
        ) AS unfinished
        GROUP BY processor, queue
    ) AS lane
    LEFT JOIN LATERAL (
        SELECT event FROM ingest.jobs WHERE id = lane.first LIMIT 1
    ) AS oldest ON true
    ORDER BY 1, 2
    """
)


# Parked jobs are looked for only where there are any: in lanes that are recorded, and those of
# processors that were paused.
_PARKED = statement(
    f"""
    SELECT lane.processor, lane.queue, lane.reason, counted.jobs
    FROM (
        SELECT processor, queue, reason FROM ingest.parked
        UNION ALL
        SELECT p.name, named.queue,
               CASE WHEN p.paused_at IS NULL AND p.name = ANY({OPEN}) THEN 'breaker_open'
                    ELSE 'paused' END
        FROM ingest.processors p
        CROSS JOIN unnest(CAST(:queues AS text[])) AS named (queue)
        WHERE p.parked AND NOT EXISTS (
            SELECT FROM ingest.parked k WHERE k.processor = p.name AND k.queue = named.queue
        )
    ) AS lane
    CROSS JOIN LATERAL (
        SELECT count(*) AS jobs FROM (
            SELECT FROM ingest.jobs
            WHERE processor = lane.processor AND queue = lane.queue AND hinted_until = 'infinity'
            LIMIT :limit
        ) AS parked
    ) AS counted
    WHERE counted.jobs > 0
    ORDER BY 1, 2
    """
)


# Registered processors without any are told too, so that the first one is seen as a rise.
_DEAD = statement(
    """
    SELECT processor, sum(jobs) AS jobs FROM (
        SELECT name AS processor, 0 AS jobs FROM ingest.processors
        UNION ALL
        (SELECT processor, 1 FROM ingest.jobs WHERE state = 'dead' AND discarded_at IS NULL
         ORDER BY event DESC LIMIT :limit)
    ) AS dead
    GROUP BY processor ORDER BY processor
    """
)


# Both tables are small: 16 rows a total, a row a process.
_SMALL = statement(
    """
    SELECT coalesce((SELECT sum(rows) FROM ingest.totals WHERE counted = 'events'), 0) AS events,
           coalesce((SELECT sum(rows) FROM ingest.totals WHERE counted = 'unhandled'), 0)
               AS unhandled
    """
)


_PROCESSES = statement(
    """
    SELECT kind, count(*) AS alive FROM ingest.processes
    WHERE seen_at > now() - CAST(:alive_for AS interval) GROUP BY kind
    """
)


def read(connection: Connection) -> Gauges:
    """Return the state of the tables. With 100,000 waiting in each place it takes 0.3 s."""
    bound = {"limit": EXAMINED}
    waiting = connection.execute(_UNADMITTED, bound).one()
    queues = {"queues": jobs.queues(connection)}
    small = connection.execute(_SMALL).one()
    return Gauges(
        now=waiting.now,
        unadmitted=waiting.unadmitted,
        unadmitted_since=waiting.unadmitted_since,
        lanes=tuple(_lanes(connection.execute(_LANES, bound | queues))),
        parked={
            (row.processor, row.queue, row.reason): row.jobs
            for row in connection.execute(_PARKED, bound | queues)
        },
        dead={row.processor: int(row.jobs) for row in connection.execute(_DEAD, bound)},
        events=int(small.events),
        unhandled=int(small.unhandled),
        processes={
            row.kind: row.alive for row in connection.execute(_PROCESSES, {"alive_for": ALIVE_FOR})
        },
    )


def _lanes(rows: Iterable[object]) -> Iterator[Lane]:
    for row in rows:
        values = dict(row._mapping)  # type: ignore[attr-defined]  # noqa: SLF001
        oldest = values.pop("oldest")
        yield Lane(**values, oldest_at=oldest and received_at(oldest))
