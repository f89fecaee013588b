"""Order per key: which job is behind which. What that does to jobs is in `pipeline.jobs`.

A job of a processor with an order has a row in `ordered_jobs` until it has ended. It comes to its
place in two steps:

1. A worker reads its key from the event. Until then nobody knows which jobs it is to go before.
2. It is placed, once everything that was received before it is admitted and read. One transaction a
   processor places at a time, so what one leaves out, because another still admits, the other
   places.

The first placed job of a key is its head. A head is claimed, and with it what follows: a run
(`jobs.claim_ordered`). The same statement notes the key in `keys_in_work`, with the last job of the
run; the primary key there lets no two workers have a key. The others are behind: due at infinity,
so nobody looks at them. Who ends a run wakes the next.

Two transactions that end jobs of one key at the same moment may both leave the waking to the other.
And code of a release before wakes nobody. The relay looks through the heads for that (`heads`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection

from ingest import queues
from ingest.store import arrays
from ingest.store.pipeline import unread as unread_jobs
from ingest.store.pipeline.unread import UnreadJob
from ingest.store.search.body_conditions import escape
from ingest.store.sql import statement

PLACED_AT_ONCE = 5_000
"""Jobs that one transaction places."""

# A part of the admit statement. A job that a replay has made is noted when its key is read, so that
# it holds up none that is received now.
NOTE_NEW = """, noted AS (
        INSERT INTO ingest.ordered_jobs (job, processor, event, placed)
        SELECT id, processor, event, false FROM created
        WHERE processor = ANY(CAST(:ordered AS text[])) AND replay IS NULL
    )"""

# Written as a subquery of one row, so that whatever the planner expects it reads one index entry.
HEAD = """(
    SELECT first.job FROM ingest.ordered_jobs AS first
    WHERE first.key = {key} AND first.placed ORDER BY first.event LIMIT 1
)"""


# Whether no job runs of the run that a key is in work of: the job that is noted is its last. So it
# is if the last has ended before others, which were taken back from their worker one by one.
_IS_IDLE = """(
    SELECT true FROM ingest.ordered_jobs AS run
    WHERE run.key = keys_in_work.key AND run.placed
      AND run.event <= (SELECT event FROM ingest.jobs WHERE id = keys_in_work.job LIMIT 1)
      AND (SELECT state FROM ingest.jobs WHERE id = run.job LIMIT 1) = 'running'
    LIMIT 1
) IS NULL"""


_UNREAD = unread_jobs.selection(
    "SELECT o.key IS NOT NULL FROM ingest.ordered_jobs o WHERE o.job = j.id LIMIT 1"
)


def unread(connection: Connection, job_ids: Sequence[int]) -> list[UnreadJob]:
    """Return those of `job_ids` that wait and whose key is still to be read."""
    return unread_jobs.select(connection, _UNREAD, job_ids)


_KEEP_KEYS = statement(
    """
    INSERT INTO ingest.ordered_jobs AS o (job, processor, event, key, placed)
    SELECT job, :processor, event, key, false
    FROM unnest(CAST(:jobs AS bigint[]), CAST(:events AS uuid[]), CAST(:keys AS uuid[]))
         AS r (job, event, key)
    WHERE (SELECT state FROM ingest.jobs WHERE id = r.job LIMIT 1) IN ('pending', 'retrying')
    ORDER BY job
    ON CONFLICT (job) DO UPDATE SET key = excluded.key WHERE o.key IS NULL
    """
)


def keep_keys(
    connection: Connection, processor: str, read: Sequence[tuple[UnreadJob, UUID]]
) -> None:
    """Note the digests of the keys of jobs; a key that another worker has noted stays."""
    connection.execute(
        _KEEP_KEYS,
        {
            "processor": processor,
            "jobs": arrays.literal(job.id for job, _ in read),
            "events": arrays.literal(job.event for job, _ in read),
            "keys": arrays.literal(key for _, key in read),
        },
    )


# Two numbers: no other lock of the pipeline has this first one.
_TAKE_TURN = statement("SELECT pg_advisory_xact_lock(1953460322, hashtext(:processor))")
# What was received before the bound is admitted and read, all of it. A replay's events do not
# count, nor what goes through the replay queue: it may take hours. A backlog of 100,000 deliveries
# of other types costs 13 ms here; an index by type would cost every delivery 3 µs.
_PLACE = statement(
    f"""
    WITH open AS MATERIALIZED (
        (SELECT delivery AS event FROM ingest.unadmitted
         WHERE replay IS NULL AND queue <> '{queues.REPLAY}'
           AND type LIKE ANY(CAST(:types AS text[]))
         ORDER BY delivery LIMIT 1)
        UNION ALL
        (SELECT event FROM ingest.ordered_jobs
         WHERE processor = :processor AND NOT placed AND key IS NULL
         ORDER BY event LIMIT 1)
    ), bound AS MATERIALIZED (
        SELECT coalesce((SELECT event FROM open ORDER BY event LIMIT 1),
                        'ffffffff-ffff-ffff-ffff-ffffffffffff') AS event
    )
    UPDATE ingest.ordered_jobs SET placed = true
    WHERE job = ANY(ARRAY(
        SELECT job FROM ingest.ordered_jobs
        WHERE processor = :processor AND NOT placed AND key IS NOT NULL
          AND event < (SELECT event FROM bound)
        ORDER BY event LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING job
    """
)


def place(connection: Connection, processor: str, types: Iterable[str]) -> list[int]:
    """Place jobs whose key is read, and before which nothing is open; return them, oldest first.

    Whoever places jobs of `processor` too waits until the transaction ends. The caller puts behind
    those that are behind another (`jobs.put_behind`).

    Args:
        connection: in whose transaction to place.
        processor: whose jobs.
        types: the types of event that it takes; `*` stands for any characters.
    """
    connection.execute(_TAKE_TURN, {"processor": processor})
    patterns = arrays.literal(escape(of_type).replace("*", "%") for of_type in types)
    parameters = {"processor": processor, "types": patterns, "limit": PLACED_AT_ONCE}
    return sorted(connection.execute(_PLACE, parameters).scalars())


# From processor to processor through the index, however many jobs each has.
_WITH_UNPLACED = """
    WITH RECURSIVE step AS (
        (SELECT processor FROM ingest.ordered_jobs WHERE NOT placed ORDER BY processor LIMIT 1)
        UNION ALL
        SELECT (SELECT processor FROM ingest.ordered_jobs
                WHERE NOT placed AND processor > step.processor ORDER BY processor LIMIT 1)
        FROM step WHERE step.processor IS NOT NULL
    )
"""
_UNPLACED = statement(f"{_WITH_UNPLACED} SELECT processor FROM step WHERE processor IS NOT NULL")


def unplaced(connection: Connection) -> set[str]:
    """Return the processors that have jobs to be placed."""
    return set(connection.execute(_UNPLACED).scalars())


# A job is looked up row by row: whatever the planner expects, it reads the index of ids.
_FORGET = statement(
    f"""
    WITH known AS MATERIALIZED (
        SELECT o.job, o.key, o.processor, o.key IS NULL OR o.processor = ANY(ARRAY(
                   SELECT name FROM ingest.processors
                   WHERE ordered_by IS NULL OR on_dead = 'skip'
               )) AS skips, j.state, j.discarded_at
        FROM ingest.ordered_jobs o
        LEFT JOIN LATERAL (
            SELECT state, discarded_at FROM ingest.jobs WHERE id = o.job LIMIT 1
        ) AS j ON true
        WHERE o.job = ANY(CAST(:ids AS bigint[]))
    ), ended AS (
        DELETE FROM ingest.ordered_jobs WHERE job = ANY(ARRAY(
            SELECT job FROM known
            WHERE state IS NULL OR state = 'succeeded' OR discarded_at IS NOT NULL
               OR (state = 'dead' AND skips)
        ))
        RETURNING key
    ), idle AS (
        DELETE FROM ingest.keys_in_work
        WHERE key = ANY(ARRAY(SELECT key FROM known WHERE state IS DISTINCT FROM 'running'))
          AND {_IS_IDLE}
        RETURNING key
    )
    SELECT key FROM ended WHERE key IS NOT NULL UNION SELECT key FROM idle
    """
)


def forget(connection: Connection, job_ids: Sequence[int]) -> list[UUID]:
    """Forget the places of those of `job_ids` that have ended, and that their keys are in work if
    none of a key runs any more; return the keys that may have another head now."""
    return list(connection.execute(_FORGET, {"ids": arrays.literal(job_ids)}).scalars())


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The first placed job of a key."""

    key: UUID
    job: int
    is_ordered: bool
    """Whether its processor, as last registered, still has an order."""


# One key each step, by the index.
_HEADS = statement(
    """
    WITH RECURSIVE line AS (
        (SELECT key, job, processor FROM ingest.ordered_jobs
         WHERE placed AND key > :after ORDER BY key, event LIMIT 1)
        UNION ALL
        SELECT following.* FROM line CROSS JOIN LATERAL (
            SELECT key, job, processor FROM ingest.ordered_jobs
            WHERE placed AND key > line.key ORDER BY key, event LIMIT 1
        ) AS following
    )
    SELECT key, job, processor <> ALL(ARRAY(
               SELECT name FROM ingest.processors WHERE ordered_by IS NULL
           )) AS is_ordered
    FROM (SELECT * FROM line LIMIT :limit) AS line
    """
)


def heads(connection: Connection, *, after: UUID, limit: int) -> list[Head]:
    """Return the heads of up to `limit` keys after one, in the order of their digests."""
    rows = connection.execute(_HEADS, {"after": after, "limit": limit}).mappings()
    return [Head(**row) for row in rows]


_OLDEST_UNPLACED = statement(
    f"""
    {_WITH_UNPLACED}
    SELECT oldest.job FROM step CROSS JOIN LATERAL (
        SELECT job FROM ingest.ordered_jobs WHERE NOT placed AND processor = step.processor
        ORDER BY event LIMIT :limit
    ) AS oldest
    """
)


def oldest_unplaced(connection: Connection, *, limit: int) -> list[int]:
    """Return jobs that are to be placed, the oldest `limit` of each processor."""
    return list(connection.execute(_OLDEST_UNPLACED, {"limit": limit}).scalars())


_LET_GO = statement(
    f"""
    DELETE FROM ingest.keys_in_work
    WHERE key = ANY(CAST(:keys AS uuid[])) AND {_IS_IDLE}
    RETURNING key
    """
)


def let_go(connection: Connection, keys: Sequence[UUID]) -> list[UUID]:
    """Forget that those of `keys` are in work of which no job runs; return them."""
    return list(connection.execute(_LET_GO, {"keys": arrays.literal(keys)}).scalars())


_LET_GO_OF_IDLE = statement(f"DELETE FROM ingest.keys_in_work WHERE {_IS_IDLE}")


def let_go_of_idle(connection: Connection) -> int:
    """Forget all keys that are in work of which no job runs; return how many that were."""
    return connection.execute(_LET_GO_OF_IDLE).rowcount


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadBefore:
    """The job that another of its key waits for."""

    event: UUID
    is_dead: bool
    """Whether it is a dead letter: an operator is waited for."""


_BEFORE = statement(
    f"""
    SELECT o.job, first.event, first.state
    FROM ingest.ordered_jobs o
    CROSS JOIN LATERAL (
        SELECT id, event, state FROM ingest.jobs WHERE id = {HEAD.format(key="o.key")} LIMIT 1
    ) AS first
    WHERE o.job = ANY(CAST(:ids AS bigint[])) AND o.placed AND first.id <> o.job
    """
)


def heads_before(connection: Connection, job_ids: Sequence[int]) -> Mapping[int, HeadBefore]:
    """Return for those of `job_ids` that are behind another of their key the first of it."""
    rows = connection.execute(_BEFORE, {"ids": arrays.literal(job_ids)})
    return {row.job: HeadBefore(event=row.event, is_dead=row.state == "dead") for row in rows}


COUNTED = 10_000
"""Jobs that are behind others, and dead letters, that `lines` looks at."""
_LINES = statement(
    """
    SELECT processor, count(*) AS jobs FROM (
        SELECT processor FROM ingest.jobs WHERE next_attempt_at = 'infinity' LIMIT :limit
    ) AS behind
    GROUP BY processor
    """
)
_BLOCKED = statement(
    """
    SELECT processor, count(DISTINCT key) AS keys FROM ingest.ordered_jobs
    WHERE placed AND job = ANY(ARRAY(
        SELECT id FROM ingest.jobs WHERE state = 'dead' AND discarded_at IS NULL
        ORDER BY event DESC LIMIT :limit
    ))
    GROUP BY processor
    """
)
_DEAD = statement(
    """
    SELECT count(*) FROM (
        SELECT FROM ingest.jobs WHERE state = 'dead' AND discarded_at IS NULL
        ORDER BY event DESC LIMIT :limit
    ) AS dead
    """
)
_HAS_ROWS = statement("SELECT true FROM ingest.ordered_jobs LIMIT 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """How long the lines of keys are, by processor."""

    behind: Mapping[str, int]
    """Jobs that are behind another of their key."""
    blocked_keys: Mapping[str, int]
    """Keys whose jobs wait behind a dead letter."""
    at_least: frozenset[str]
    """Which of the two there may be more of: not all jobs were looked at."""


def lines(connection: Connection) -> Lines:
    """Count the jobs that are behind others, and the keys that wait for an operator."""
    if connection.execute(_HAS_ROWS).first() is None:
        return Lines(behind={}, blocked_keys={}, at_least=frozenset())
    bound = {"limit": COUNTED}
    behind = {row.processor: row.jobs for row in connection.execute(_LINES, bound)}
    blocked = {row.processor: row.keys for row in connection.execute(_BLOCKED, bound)}
    looked_at = {
        "behind": sum(behind.values()),
        "blocked_keys": connection.execute(_DEAD, bound).scalar_one(),
    }
    return Lines(
        behind=behind,
        blocked_keys=blocked,
        at_least=frozenset(name for name, count in looked_at.items() if count >= COUNTED),
    )
