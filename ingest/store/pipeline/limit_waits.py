"""What waits for limits: for the relay, which wakes it, and for those who look."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from ingest.rates import Log
from ingest.store import arrays
from ingest.store.pipeline import breakers, limits
from ingest.store.pipeline.limits import Bounds
from ingest.store.sql import statement


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingLine:
    """A line in which jobs wait."""

    processor: str
    bounds: Bounds
    log: Log
    running: int
    now: float
    """Unix time, by the server's clock."""
    has_ready: bool
    """Whether a key is ready, or its time has come."""
    next_key_at: float | None
    """When the first key is that waits for its own rate; None: none does."""
    pulled_at: float | None
    """When a worker last took jobs."""


# A processor is found by its first waiting key, whatever waits of it.
_WAITING = statement(
    f"""
    SELECT {limits.COLUMNS}, limits.starts_at, limits.starts,
           (SELECT count(*) FROM ingest.jobs
            WHERE lease_until IS NOT NULL AND jobs.processor = limits.processor) AS running,
           (SELECT true FROM ingest.limited_keys k
            WHERE k.processor = limits.processor AND waiting AND held_until IS NULL
            LIMIT 1) IS NOT NULL AS has_ready,
           CAST(extract(epoch FROM held.until) AS float8) AS next_key_at,
           CAST(extract(epoch FROM pulled_at) AS float8) AS pulled_at,
           CAST(extract(epoch FROM clock_timestamp()) AS float8) AS now
    FROM ingest.limits
    LEFT JOIN LATERAL (
        SELECT held_until AS until FROM ingest.limited_keys k
        WHERE k.processor = limits.processor AND held_until IS NOT NULL AND waiting
        ORDER BY held_until LIMIT 1
    ) AS held ON true
    WHERE limits.processor <> ALL(ARRAY(
              SELECT name FROM ingest.processors WHERE paused_at IS NOT NULL
          ))
      AND limits.processor <> ALL({breakers.OPEN})
      AND (SELECT true FROM ingest.limited_jobs l
           WHERE l.processor = limits.processor AND NOT claimed LIMIT 1) IS NOT NULL
    """
)


def waiting_lines(connection: Connection) -> list[WaitingLine]:
    """Return the lines in which jobs wait, of processors that are not paused, nor their target
    down."""
    return [
        WaitingLine(
            processor=row.processor,
            bounds=limits.in_force(row),
            log=list(zip(row.starts_at, row.starts, strict=True)),
            running=row.running,
            now=row.now,
            has_ready=row.has_ready or (row.next_key_at or row.now + 1) <= row.now,
            next_key_at=row.next_key_at,
            pulled_at=row.pulled_at,
        )
        for row in connection.execute(_WAITING)
    ]


class InLine(NamedTuple):
    """A job that waits in a line, and its place there."""

    job: int
    key: UUID
    place: int


BEFORE_ALL = InLine(0, UUID(int=0), 0)
_PROCESSORS = statement(
    """
    SELECT processor FROM ingest.limits
    WHERE (SELECT true FROM ingest.limited_jobs l
           WHERE l.processor = limits.processor AND NOT claimed LIMIT 1) IS NOT NULL
    """
)
_FOLLOWING = statement(
    """
    SELECT job, key, place FROM ingest.limited_jobs
    WHERE processor = :processor AND NOT claimed
      AND (key, place) > (CAST(:key AS uuid), CAST(:place AS bigint))
    ORDER BY key, place LIMIT :limit
    """
)


def processors(connection: Connection) -> list[str]:
    """Return the processors in whose lines jobs wait."""
    return list(connection.execute(_PROCESSORS).scalars())


def following(connection: Connection, processor: str, *, after: InLine, limit: int) -> list[InLine]:
    """Return up to `limit` jobs of a line that come after another, key by key."""
    parameters = {
        "processor": processor,
        "key": after.key,
        "place": after.place,
        "limit": limit,
    }
    return [InLine(*row) for row in connection.execute(_FOLLOWING, parameters)]


# Whoever enters a job has this row locked, so that no key is forgotten of which a job enters. What
# is locked, a later sweep finds.
_DISSOLVING = statement(
    """
    SELECT processor FROM ingest.limits
    WHERE NOT declared
      AND ((SELECT true FROM ingest.limited_jobs l
            WHERE l.processor = limits.processor AND NOT claimed LIMIT 1) IS NOT NULL
           OR (SELECT true FROM ingest.limited_jobs l
               WHERE l.processor = limits.processor AND claimed LIMIT 1) IS NOT NULL
           OR (SELECT true FROM ingest.limited_keys k
               WHERE k.processor = limits.processor LIMIT 1) IS NOT NULL)
    FOR UPDATE SKIP LOCKED
    """
)
_FREE = statement(
    """
    DELETE FROM ingest.limited_jobs WHERE job = ANY(ARRAY(
        SELECT job FROM ingest.limited_jobs
        WHERE processor = :processor AND NOT claimed
        ORDER BY key, place LIMIT :limit
    ))
    RETURNING job, key
    """
)
_FORGET_KEYS = statement(
    """
    DELETE FROM ingest.limited_keys k
    WHERE processor = :processor AND key = ANY(CAST(:keys AS uuid[]))
      AND (SELECT true FROM ingest.limited_jobs l
           WHERE l.processor = k.processor AND l.key = k.key AND NOT claimed LIMIT 1) IS NULL
    """
)
_FORGET_LINE = statement(
    """
    WITH begun AS (
        DELETE FROM ingest.limited_jobs WHERE processor = :processor AND claimed
    )
    DELETE FROM ingest.limited_keys WHERE processor = :processor
    """
)


def dissolve(connection: Connection, *, limit: int) -> list[int]:
    """Take jobs out of the lines of processors whose last release has no limits; return them, up to
    `limit` of each.

    What is left is a line still: a release with limits may come back to it.
    """
    processors = connection.execute(_DISSOLVING).scalars().all()
    return [job for name in processors for job in _free(connection, name, limit=limit)]


def _free(connection: Connection, processor: str, *, limit: int) -> list[int]:
    """Take the first jobs out of a locked line, and what nothing in it needs any more."""
    freed = connection.execute(_FREE, {"processor": processor, "limit": limit}).all()
    if len(freed) < limit:
        connection.execute(_FORGET_LINE, {"processor": processor})
    else:
        keys = arrays.literal({row.key for row in freed})
        connection.execute(_FORGET_KEYS, {"processor": processor, "keys": keys})
    return [row.job for row in freed]


_WAITS = statement(
    f"""
    SELECT l.job, {limits.COLUMNS}, k.held_until IS NOT NULL AS is_held
    FROM ingest.limited_jobs l
    JOIN ingest.limits ON limits.processor = l.processor
    LEFT JOIN ingest.limited_keys k ON k.processor = l.processor AND k.key = l.key
    WHERE l.job = ANY(CAST(:ids AS bigint[])) AND NOT l.claimed
    """
)


def reasons(connection: Connection, job_ids: Sequence[int]) -> dict[int, str]:
    """Return for those of `job_ids` that are in a line the limits that they wait for, as a clause:
    `a limit: 20 run at once`."""
    rows = connection.execute(_WAITS, {"ids": arrays.literal(job_ids)})
    return {row.job: _reason(limits.in_force(row), is_held=row.is_held) for row in rows}


def _reason(bounds: Bounds, *, is_held: bool) -> str:
    of_key = bounds.of_key_in_words()
    if is_held and of_key:
        return f"a limit of its key: {of_key}"
    limited = bounds.in_words()
    return f"a limit: {limited}" if limited else "its turn"


class Use(NamedTuple):
    """How far the limits of a processor are used."""

    running: int
    in_line: int
    """Up to `COUNTED`."""
    log: Log
    now: float
    """Unix time, by the server's clock."""


COUNTED = 10_000
_USE = statement(
    """
    SELECT (SELECT count(*) FROM ingest.jobs
            WHERE lease_until IS NOT NULL AND jobs.processor = limits.processor) AS running,
           (SELECT count(*) FROM (
                SELECT FROM ingest.limited_jobs l
                WHERE l.processor = limits.processor AND NOT claimed LIMIT :limit
            ) AS line) AS in_line,
           starts_at, starts, CAST(extract(epoch FROM clock_timestamp()) AS float8) AS now
    FROM ingest.limits WHERE processor = :processor
    """
)


_IN_LINE = statement(
    """
    SELECT limits.processor, count(*) AS jobs
    FROM ingest.limits CROSS JOIN LATERAL (
        SELECT FROM ingest.limited_jobs l
        WHERE l.processor = limits.processor AND NOT claimed LIMIT :limit
    ) AS line
    GROUP BY limits.processor
    """
)


def in_line(connection: Connection) -> dict[str, int]:
    """Return how many jobs wait for the limits of each processor for which some do, up to `COUNTED`
    of each."""
    rows = connection.execute(_IN_LINE, {"limit": COUNTED})
    return {row.processor: row.jobs for row in rows}


def use(connection: Connection, processor: str) -> Use:
    """Return how far the limits of a processor that has some are used."""
    row = connection.execute(_USE, {"processor": processor, "limit": COUNTED}).one()
    log = list(zip(row.starts_at, row.starts, strict=True))
    return Use(running=row.running, in_line=row.in_line, log=log, now=row.now)
