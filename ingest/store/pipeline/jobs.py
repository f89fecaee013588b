"""Jobs and their attempts: every transition there is, and no other module writes these tables.

       ┌── made by admit ──┐
       ▼                   ▼
    pending ──claim──▶ running ──finish──▶ succeeded
       ▲                 │ fail
       │                 ├───▶ retrying ──claim──▶ running
       │                 └───▶ dead
       └──── requeue (replay), from any state but running

    pending, retrying ──discard──▶ dead       an operator wants it no more; dead: marked so
    Jobs that no worker may or can take now are parked: they wait, the relay does not look at them,
    and they go on as they were. Their processor is paused, or no live worker has it ("unknown"),
    or none that has it consumes their queue ("unconsumed").

A row moves by compare-and-set: the statement names the state it expects, and rows that it does not
return were not there to be moved. What a worker may still do with a running job is fenced by the
attempt number: whoever claimed it later has another.
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from ingest.errors import LeaseLost
from ingest.store import arrays
from ingest.store.loose_scan import waiting_queues
from ingest.store.pipeline import metrics
from ingest.store.pipeline.metrics import NOTE, Note
from ingest.store.sql import statement


class Outcome(enum.StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DISCARDED = "discarded"
    """The processor said that no retry can help."""
    SNOOZED = "snoozed"
    """The processor asked for another time; does not count as a failure."""
    TIMED_OUT = "timed_out"
    LOST = "lost"
    """The worker process ended, or stalled past its lease, while it ran the job."""
    RELEASED = "released"
    """The worker process ended, or stalled, over another job of the batch; does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJobs:
    """For which processor jobs are made of events of a type."""

    type: str
    """`*` in it stands for any characters."""
    processor: str
    queue: str
    max_attempts: int
    claimed: int = 0
    """How many of one batch the worker that makes them claims at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """A worker that claims what it makes."""

    worker: str
    lease_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRef:
    """A job that may be claimed."""

    id: int
    processor: str
    queue: str
    trigger: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedJob:
    """A job that this worker holds until its lease ends, with the event it is for."""

    id: int
    processor: str
    attempt: int
    failures: int
    trigger: str
    event: UUID
    source: str
    event_id: str
    type: str
    received_at: datetime
    body: bytes | None
    """None: the bodies of its day were dropped."""
    replay: int | None = None
    """The last replay that put it back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A claim, by its fencing token."""

    id: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What to record of an attempt that did not succeed, and what comes next."""

    id: int
    attempt: int
    outcome: Outcome
    retry_in_s: float | None
    """Seconds until the next attempt; None: the job is dead."""
    rescued: bool = False
    """The next attempt is a rescue rather than a retry: the job runs apart from others."""
    error_type: str | None = None
    error_message: str | None = None
    traceback: str | None = None

    @property
    def counts(self) -> bool:
        """Whether the attempt spends one of the job's `max_attempts`."""
        return self.outcome not in (Outcome.SNOOZED, Outcome.RELEASED)


@dataclass(frozen=True, slots=True, kw_only=True)
class AbandonedJob:
    """A running job whose worker is gone."""

    id: int
    attempt: int
    failures: int
    max_attempts: int
    trigger: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedLane:
    """A processor whose jobs of a queue are parked because no worker can take them."""

    processor: str
    queue: str
    reason: str
    """`unknown`: no live worker has the processor; `unconsumed`: none that has it consumes the
    queue."""


_WHY_PARKED = {
    "paused": "it is paused",
    "unknown": "no live worker has it",
    "unconsumed": "no worker that has it consumes its queue",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedJobs:
    """How many jobs of a processor are parked in a queue, why, and since when."""

    processor: str
    queue: str
    reason: str
    """`paused`, `unknown` or `unconsumed`."""
    since: datetime | None
    jobs: int

    @property
    def why(self) -> str:
        """The reason as people read it."""
        return _WHY_PARKED[self.reason]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeued:
    """What a replay did to the jobs that it named."""

    job_ids: tuple[int, ...]
    running: int
    """Left alone, because they run."""


# The part of the admit statement (ingest.store.pipeline.admission) that makes jobs. Jobs that the
# admitting worker runs next are claimed as they are made: that saves a second row version and a
# round trip. The others are pending and count as dispatched, because the worker runs or dispatches
# them at once.
_CREATE = """
    INSERT INTO ingest.jobs (event, processor, queue, state, trigger, attempt, failures,
                             max_attempts, next_attempt_at, hinted_until, lease_until,
                             started_at, worker, replay)
    SELECT event, processor, queue, CASE WHEN claimed THEN 'running' ELSE 'pending' END,
           trigger, CAST(claimed AS integer), 0, max_attempts,
           CASE WHEN NOT claimed THEN now() END,
           CASE WHEN NOT claimed THEN now() + make_interval(secs => :redispatch_after_s) END,
           CASE WHEN claimed THEN now() + make_interval(secs => :lease_s) END,
           CASE WHEN claimed THEN now() END, CASE WHEN claimed THEN :worker END, replay
    FROM (
        SELECT s.event, p.processor, s.replay, p.max_attempts,
               CASE WHEN s.replay IS NULL THEN p.queue ELSE :replay_queue END AS queue,
               CASE WHEN s.replay IS NULL THEN 'delivery' ELSE 'replay' END AS trigger,
               row_number() OVER (PARTITION BY p.processor ORDER BY s.event) <= p.claimed
                   AND p.processor <> ALL(ARRAY(SELECT name FROM ingest.processors
                                                WHERE paused_at IS NOT NULL)) AS claimed
        FROM settled s
        JOIN unnest(CAST(:types AS text[]), CAST(:processors AS text[]), CAST(:queues AS text[]),
                    CAST(:max_attempts AS smallint[]), CAST(:claimed AS integer[]))
             AS p (type, processor, queue, max_attempts, claimed)
          ON {is_of_type} AND (s.processor IS NULL OR s.processor = p.processor)
        WHERE s.delivery = s.event
    ) AS wanted
    ON CONFLICT (event, processor) DO NOTHING
    RETURNING id, event, processor, queue, state, attempt, failures, trigger, replay
"""
CREATE = _CREATE.format(is_of_type="p.type = s.type")
# An event of several patterns of one processor makes one job: the first.
CREATE_BY_PATTERN = _CREATE.format(is_of_type="s.type LIKE p.type")


_DUE_JOBS = statement(
    """
    SELECT id, processor, queue, trigger FROM ingest.jobs
    WHERE id = ANY(CAST(:ids AS bigint[]))
      AND state IN ('pending', 'retrying') AND next_attempt_at <= now()
    ORDER BY id
    """
)


def due(connection: Connection, job_ids: Sequence[int]) -> list[JobRef]:
    """Which of `job_ids` wait and are due."""
    rows = connection.execute(_DUE_JOBS, {"ids": arrays.literal(job_ids)})
    return [JobRef(**row) for row in rows.mappings()]


_PAUSED = "(ARRAY(SELECT name FROM ingest.processors WHERE paused_at IS NOT NULL))"


_NOT_PAUSED = f"processor <> ALL{_PAUSED}"


# The event is looked up by a range of one id, in the order of ids: to a planner that expects one
# row the index of types and ids, read from end to end, is otherwise as good as the primary key.
_CLAIM = statement(
    f"""
    WITH claimed AS (
        UPDATE ingest.jobs
        SET state = 'running', attempt = attempt + 1, max_attempts = :max_attempts,
            worker = :worker, started_at = now(),
            lease_until = now() + make_interval(secs => :lease_s),
            next_attempt_at = NULL, hinted_until = NULL
        WHERE id = ANY(ARRAY(
            SELECT id FROM ingest.jobs
            WHERE id = ANY(CAST(:ids AS bigint[]))
              AND state IN ('pending', 'retrying') AND next_attempt_at <= now()
              AND {_NOT_PAUSED}
            ORDER BY id
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING id, event, processor, attempt, failures, trigger, replay
    )
    SELECT c.id, c.processor, c.attempt, c.failures, c.trigger, c.event, e.source, e.event_id,
           e.type, e.received_at, d.body, c.replay
    FROM claimed c
    CROSS JOIN LATERAL (
        SELECT source, event_id, type, received_at FROM ingest.events
        WHERE id BETWEEN c.event AND c.event
        ORDER BY id LIMIT 1
    ) AS e
    LEFT JOIN LATERAL (
        SELECT body FROM ingest.deliveries WHERE id = c.event LIMIT 1
    ) AS d ON true
    ORDER BY c.id
    """
)


def claim(
    connection: Connection,
    job_ids: Sequence[int],
    *,
    worker: str,
    lease_s: float,
    max_attempts: int,
) -> list[ClaimedJob]:
    """Take those of `job_ids` that wait, are due and whose processor is not paused: attempt + 1,
    lease by the server's clock.

    To be committed alone, before the work, so that a job that kills its process has spent an
    attempt. `max_attempts` is what their processor allows today."""
    rows = connection.execute(
        _CLAIM,
        {
            "ids": arrays.literal(job_ids),
            "worker": worker,
            "lease_s": lease_s,
            "max_attempts": max_attempts,
        },
    )
    return [ClaimedJob(**row) for row in rows.mappings()]


# Rows are found by the index of ids and fenced by a hashed subplan: no join is made of an IN that
# IS TRUE is asked of, so the planner need not choose a join by what it believes of the table.
_STILL_OURS = """
    id = ANY(CAST(:ids AS bigint[])) AND state = 'running'
    AND ((id, attempt) IN (
        SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:attempts AS integer[]))
    )) IS TRUE
"""


_RENEW = statement(
    f"""
    UPDATE ingest.jobs SET lease_until = now() + make_interval(secs => :lease_s)
    WHERE {_STILL_OURS}
    RETURNING id
    """
)


def renew(connection: Connection, held: Sequence[Lease], *, lease_s: float) -> set[int]:
    """Extend the leases that are still ours; returns the ids of those jobs."""
    return set(
        connection.execute(_RENEW, {**_arrays(held), "lease_s": lease_s}).scalars(),
    )


_FINISH = statement(
    f"""
    WITH noted AS ({NOTE})
    UPDATE ingest.jobs SET state = 'succeeded', finished_at = clock_timestamp(), lease_until = NULL
    WHERE {_STILL_OURS}
    RETURNING id
    """
)


def finish(connection: Connection, held: Sequence[Lease], notes: Iterable[Note] = ()) -> None:
    """`running → succeeded`, in the transaction that holds the processor's effects; `notes` add to
    the minute's activity.

    Raises:
        LeaseLost: some were taken over meanwhile; the transaction must roll back.
    """
    parameters = _arrays(held) | metrics.parameters(notes)
    finished = set(connection.execute(_FINISH, parameters).scalars())
    lost = frozenset(each.id for each in held) - finished
    if lost:
        raise LeaseLost(lost)


# What is to be recorded of a job is found by its place in the arrays: again no join.
_PLACE = "array_position(CAST(:ids AS bigint[]), {id})"


_FAIL = statement(
    f"""
    WITH held AS MATERIALIZED (
        SELECT id, {_PLACE.format(id="id")} AS place, processor, attempt, trigger, worker,
               started_at, replay
        FROM ingest.jobs
        WHERE {_STILL_OURS}
        ORDER BY id
        FOR UPDATE
    ), moved AS (
        UPDATE ingest.jobs
        SET lease_until = NULL, (state, failures, trigger, next_attempt_at, finished_at) = (
            SELECT CASE WHEN retry_in_s IS NULL THEN 'dead' ELSE 'retrying' END,
                   jobs.failures + CAST(counts AS integer),
                   CASE WHEN retry_in_s IS NULL THEN jobs.trigger ELSE next_trigger END,
                   now() + make_interval(secs => retry_in_s),
                   CASE WHEN retry_in_s IS NULL THEN clock_timestamp() END
            FROM (
                SELECT (CAST(:retry_in_s AS float8[]))[place] AS retry_in_s,
                       (CAST(:counts AS boolean[]))[place] AS counts,
                       (CAST(:triggers AS text[]))[place] AS next_trigger
                FROM {_PLACE.format(id="jobs.id")} AS place
            ) AS failed
        )
        WHERE id = ANY(ARRAY(SELECT id FROM held))
        RETURNING id
    ), kept AS (
        INSERT INTO ingest.attempts (job, number, trigger, worker, started_at, finished_at, outcome,
                              error_type, error_message, traceback, replay)
        SELECT id, attempt, trigger, worker, started_at, clock_timestamp(),
               (CAST(:outcomes AS text[]))[place], (CAST(:error_types AS text[]))[place],
               (CAST(:error_messages AS text[]))[place], (CAST(:tracebacks AS text[]))[place],
               replay
        FROM held
    ), noted AS (
        INSERT INTO ingest.activity (minute, what, label, bucket, slot, count)
        SELECT date_trunc('minute', now()), 'failed', processor, 0, pg_backend_pid() % 16, count(*)
        FROM held WHERE (CAST(:counts AS boolean[]))[place]
        GROUP BY processor ORDER BY processor
        ON CONFLICT (minute, what, label, bucket, slot)
        DO UPDATE SET count = activity.count + excluded.count
    )
    SELECT id FROM moved
    """
)


def fail(connection: Connection, failures: Sequence[Failure]) -> set[int]:
    """`running → retrying` or `dead`, and keep the attempt. Returns the ids that were still
    ours."""
    if not failures:
        return set()
    parameters = {
        **_arrays(failures),
        "outcomes": arrays.literal(failure.outcome for failure in failures),
        "counts": arrays.literal(failure.counts for failure in failures),
        "retry_in_s": arrays.literal(failure.retry_in_s for failure in failures),
        "triggers": arrays.literal(
            "rescue" if failure.rescued else "retry" for failure in failures
        ),
        "error_types": arrays.literal(failure.error_type for failure in failures),
        "error_messages": arrays.literal(failure.error_message for failure in failures),
        "tracebacks": arrays.literal(failure.traceback for failure in failures),
    }
    return set(connection.execute(_FAIL, parameters).scalars())


_ORPHAN_COLUMNS = "jobs.id, jobs.attempt, jobs.failures, jobs.max_attempts, jobs.trigger"


_HELD_BY = statement(
    f"""
    SELECT {_ORPHAN_COLUMNS} FROM ingest.jobs
    WHERE id = ANY(ARRAY(
              SELECT id FROM ingest.jobs WHERE lease_until IS NOT NULL AND worker = :worker
          ))
      AND lease_until IS NOT NULL AND worker = :worker
    ORDER BY id
    FOR UPDATE
    """
)


def held_by(connection: Connection, worker: str) -> list[AbandonedJob]:
    """Running jobs that `worker` claimed, locked until the transaction ends; for whoever finds it
    dead."""
    rows = connection.execute(_HELD_BY, {"worker": worker})
    return [AbandonedJob(**row) for row in rows.mappings()]


_EXPIRED = statement(
    f"""
    SELECT {_ORPHAN_COLUMNS} FROM ingest.jobs
    WHERE lease_until <= now()
    ORDER BY lease_until LIMIT :limit
    FOR UPDATE SKIP LOCKED
    """
)


def expired(connection: Connection, *, limit: int) -> list[AbandonedJob]:
    """Running jobs whose lease has ended, locked until the transaction ends."""
    rows = connection.execute(_EXPIRED, {"limit": limit})
    return [AbandonedJob(**row) for row in rows.mappings()]


_WAITING_QUEUES = waiting_queues("ingest.jobs", "due_at IS NOT NULL", due="due_at")


def queues(connection: Connection) -> list[str]:
    """The queues that have waiting jobs."""
    return list(connection.execute(_WAITING_QUEUES).scalars())


_HINT_DUE = statement(
    f"""
    UPDATE ingest.jobs SET hinted_until = now() + make_interval(secs => :ttl_s)
    WHERE id = ANY(ARRAY(
        SELECT id FROM ingest.jobs
        WHERE queue = :queue AND due_at <= now() AND {_NOT_PAUSED}
          AND processor <> ALL(CAST(:unserved AS text[]))
        ORDER BY due_at LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING id
    """
)


def dispatch_due(
    connection: Connection,
    queue: str,
    *,
    limit: int,
    ttl_s: float,
    unserved: Sequence[str] = (),
) -> list[int]:
    """Ids of jobs of `queue` that are due and that Redis is not presumed to know; from now on it is
    presumed to, for `ttl_s` seconds. Those of the processors `unserved`, no worker can take."""
    parameters = {"queue": queue, "limit": limit, "ttl_s": ttl_s, "unserved": list(unserved)}
    return list(connection.execute(_HINT_DUE, parameters).scalars())


# Far from due, and back. Which processors have such jobs is noted beside their pause, so that
# nobody looks for them in vain.
_DUE = """
    WITH due AS MATERIALIZED (
        SELECT id, processor FROM ingest.jobs WHERE queue = :queue AND due_at <= now()
        ORDER BY due_at LIMIT :limit
    )"""


_DUE_OF_THOSE = """
        id = ANY(ARRAY(
            SELECT id FROM ingest.jobs
            WHERE id = ANY(ARRAY(
                      SELECT id FROM due WHERE processor = ANY(CAST(:processors AS text[]))
                  ))
              AND due_at <= now()
            FOR UPDATE SKIP LOCKED
        ))"""


_PARK = statement(
    f"""{_DUE}, parked AS (
        UPDATE ingest.jobs SET hinted_until = 'infinity' WHERE {_DUE_OF_THOSE}
        RETURNING processor
    ), noted AS (
        UPDATE ingest.processors SET parked = true
        WHERE name IN (SELECT processor FROM parked) AND NOT parked
    )
    SELECT count(*) FROM parked
    """
)


def park(connection: Connection, queue: str, processors: Sequence[str], *, limit: int) -> int:
    """Put aside the jobs of paused `processors` among the `limit` of `queue` that are due longest,
    so that the relay need not look at them again; returns how many."""
    parameters = {"queue": queue, "processors": list(processors), "limit": limit}
    return int(connection.execute(_PARK, parameters).scalar_one())


_UNPARK = statement(
    """
    WITH unparked AS (
        UPDATE ingest.jobs SET hinted_until = NULL
        WHERE id = ANY(ARRAY(
            SELECT id FROM ingest.jobs
            WHERE queue = :queue AND due_at = 'infinity'
              AND processor = ANY(CAST(:processors AS text[]))
              AND processor <> ALL(ARRAY(
                  SELECT parked.processor FROM ingest.parked WHERE parked.queue = :queue
              ))
            LIMIT :limit
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING 1
    )
    SELECT count(*) FROM unparked
    """
)


def unpark(connection: Connection, queue: str, processors: Sequence[str], *, limit: int) -> int:
    """Take up again up to `limit` jobs of `processors` that were put aside; returns how many."""
    parameters = {"queue": queue, "processors": list(processors), "limit": limit}
    return int(connection.execute(_UNPARK, parameters).scalar_one())


# One lock number of the pipeline's own, beside the 16 slots of the totals.
_TAKE_TURN = statement("SELECT pg_try_advisory_xact_lock(1953460321, 16)")


def take_turn_to_park(connection: Connection) -> bool:
    """Return whether this transaction alone parks and unparks what no worker can take; another
    relay may be at it."""
    return bool(connection.execute(_TAKE_TURN).scalar_one())


_DUE_PROCESSORS = statement(f"{_DUE} SELECT DISTINCT processor FROM due ORDER BY processor")


def due_processors(connection: Connection, queue: str, *, limit: int) -> list[str]:
    """Return the processors of the `limit` jobs of `queue` that are due longest."""
    parameters = {"queue": queue, "limit": limit}
    return list(connection.execute(_DUE_PROCESSORS, parameters).scalars())


_PARK_LANE = statement(
    f"""{_DUE}, moved AS (
        UPDATE ingest.jobs SET hinted_until = 'infinity' WHERE {_DUE_OF_THOSE}
        RETURNING processor
    ), noted AS (
        INSERT INTO ingest.parked (processor, queue, reason)
        SELECT DISTINCT processor, CAST(:queue AS text), CAST(:reason AS text) FROM moved
        ON CONFLICT (processor, queue) DO UPDATE SET reason = excluded.reason
        WHERE parked.reason <> excluded.reason
    )
    SELECT count(*) FROM moved
    """
)


def park_lane(connection: Connection, lane: ParkedLane, *, limit: int) -> int:
    """Park a lane's jobs among the `limit` of its queue that are due longest, and note why; returns
    how many. To be called in turn (`take_turn_to_park`)."""
    parameters = {
        "queue": lane.queue,
        "processors": [lane.processor],
        "reason": lane.reason,
        "limit": limit,
    }
    return int(connection.execute(_PARK_LANE, parameters).scalar_one())


_UNPARK_LANE = statement(
    """
    WITH unparked AS (
        UPDATE ingest.jobs SET hinted_until = NULL, queue = :to
        WHERE id = ANY(ARRAY(
            SELECT id FROM ingest.jobs
            WHERE processor = :processor AND queue = :from AND due_at = 'infinity'
            LIMIT :limit
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING 1
    )
    SELECT count(*) FROM unparked
    """
)


_FORGET_LANE = statement(
    """
    DELETE FROM ingest.parked WHERE processor = :processor AND queue = :queue
      AND NOT EXISTS (SELECT FROM ingest.jobs WHERE jobs.processor = :processor
                      AND jobs.queue = :queue AND due_at = 'infinity')
    """
)


def unpark_lane(connection: Connection, lane: ParkedLane, *, queue: str, limit: int) -> int:
    """Take up again up to `limit` jobs of a lane, in `queue`, where a worker takes them; with the
    last of them the note goes. Returns how many. To be called in turn."""
    parameters = {"processor": lane.processor, "from": lane.queue, "to": queue, "limit": limit}
    unparked = int(connection.execute(_UNPARK_LANE, parameters).scalar_one())
    if unparked < limit:
        connection.execute(_FORGET_LANE, {"processor": lane.processor, "queue": lane.queue})
    return unparked


_FOLLOW = statement(
    f"""{_DUE}, moved AS (
        UPDATE ingest.jobs SET queue = :to, hinted_until = NULL WHERE {_DUE_OF_THOSE}
        RETURNING 1
    )
    SELECT count(*) FROM moved
    """
)


def follow(
    connection: Connection, processor: str, *, from_queue: str, to_queue: str, limit: int
) -> int:
    """Move a processor's jobs, among the `limit` of a queue that are due longest, to the queue that
    it has now; returns how many."""
    parameters = {
        "processors": [processor],
        "queue": from_queue,
        "to": to_queue,
        "limit": limit,
    }
    return int(connection.execute(_FOLLOW, parameters).scalar_one())


_PARKED_LANES = statement(
    "SELECT processor, queue, reason FROM ingest.parked ORDER BY processor, queue"
)


def parked_lanes(connection: Connection) -> list[ParkedLane]:
    """Return the lanes whose jobs are parked because no worker could take them."""
    return [ParkedLane(**row) for row in connection.execute(_PARKED_LANES).mappings()]


# Counted in the index of what is parked.
_PARKED = statement(
    """
    WITH counted AS (
        SELECT processor, queue, count(*) AS jobs FROM ingest.jobs
        WHERE due_at = 'infinity' GROUP BY processor, queue
    )
    SELECT counted.processor, counted.queue, counted.jobs,
           CASE WHEN paused_at IS NULL THEN coalesce(reason, 'paused') ELSE 'paused' END AS reason,
           coalesce(paused_at, since) AS since
    FROM counted
    LEFT JOIN ingest.processors ON processors.name = counted.processor
    LEFT JOIN ingest.parked
           ON parked.processor = counted.processor AND parked.queue = counted.queue
    ORDER BY counted.jobs DESC, counted.processor, counted.queue
    """
)


def parked(connection: Connection) -> list[ParkedJobs]:
    """Count the parked jobs by processor and queue, the most first."""
    return [ParkedJobs(**row) for row in connection.execute(_PARKED).mappings()]


_UNDO_DISPATCH = statement(
    "UPDATE ingest.jobs SET hinted_until = NULL"
    " WHERE id = ANY(CAST(:ids AS bigint[])) AND state IN ('pending', 'retrying')"
)


def undo_dispatch(connection: Connection, job_ids: Iterable[int]) -> None:
    """Take back `dispatch_due` for hints that were not sent."""
    connection.execute(_UNDO_DISPATCH, {"ids": arrays.literal(job_ids)})


_REQUEUE = statement(
    """
    WITH chosen AS (
        SELECT jobs.* FROM ingest.jobs
        WHERE id = ANY(CAST(:ids AS bigint[]))
        ORDER BY id
        FOR UPDATE
    ), succeeded AS (
        INSERT INTO ingest.attempts (job, number, trigger, worker, started_at, finished_at, outcome,
                              replay)
        SELECT id, attempt, trigger, worker, started_at, finished_at, 'succeeded', replay
        FROM chosen WHERE state = 'succeeded'
    ), moved AS (
        UPDATE ingest.jobs
        SET state = 'pending', trigger = 'replay', failures = 0, queue = :queue, replay = :replay,
            next_attempt_at = now() + make_interval(secs => given.delay_s),
            hinted_until = NULL, finished_at = NULL, discarded_at = NULL
        FROM unnest(CAST(:ids AS bigint[]), CAST(:delays_s AS float8[])) AS given (id, delay_s)
        JOIN chosen USING (id)
        WHERE jobs.id = given.id AND chosen.state <> 'running'
        RETURNING jobs.id
    )
    SELECT id, 'pending' AS state FROM moved
    UNION ALL
    SELECT id, state FROM chosen WHERE state = 'running'
    """
)


def requeue(
    connection: Connection,
    job_ids: Sequence[int],
    *,
    replay: int,
    queue: str,
    delays_s: Sequence[float],
) -> Requeued:
    """Any state but `running → pending`, for a replay: failures start anew, attempts stay.

    Args:
        job_ids: the jobs.
        replay: the row in `replays` that says who and why.
        queue: the queue that the next attempts go through.
        delays_s: for each job, seconds until it is due.
    """
    rows = connection.execute(
        _REQUEUE,
        {
            "ids": arrays.literal(job_ids),
            "delays_s": arrays.literal(delays_s),
            "replay": replay,
            "queue": queue,
        },
    ).all()
    return Requeued(
        job_ids=tuple(row.id for row in rows if row.state == "pending"),
        running=sum(row.state == "running" for row in rows),
    )


# The discard is an attempt that nobody made: it has a number, so that it stands in its place.
_DISCARD = statement(
    """
    WITH chosen AS (
        SELECT id, trigger FROM ingest.jobs
        WHERE id = ANY(CAST(:ids AS bigint[])) AND discarded_at IS NULL
          AND state IN ('pending', 'retrying', 'dead')
        ORDER BY id
        FOR UPDATE
    ), moved AS (
        UPDATE ingest.jobs
        SET state = 'dead', attempt = attempt + 1, discarded_at = now(), finished_at = now(),
            next_attempt_at = NULL, hinted_until = NULL
        FROM chosen WHERE jobs.id = chosen.id
        RETURNING jobs.id, jobs.attempt, chosen.trigger
    ), kept AS (
        INSERT INTO ingest.attempts (job, number, trigger, started_at, finished_at, outcome,
                              error_message, replay)
        SELECT id, attempt, trigger, now(), now(), 'discarded', :why, :replay FROM moved
    )
    SELECT count(*) FROM moved
    """
)


def discard(connection: Connection, job_ids: Sequence[int], *, replay: int | None, why: str) -> int:
    """`pending` or `retrying → dead`, and mark those that are dead: an operator wants them no more.
    Running ones are left alone. Returns how many.

    Args:
        job_ids: the jobs.
        replay: the row in `replays` that says who and why, if there is one.
        why: a sentence, kept with the attempt that records it.
    """
    parameters = {"ids": arrays.literal(job_ids), "replay": replay, "why": why}
    return int(connection.execute(_DISCARD, parameters).scalar_one())


_RUN_NOW = statement(
    """
    UPDATE ingest.jobs SET next_attempt_at = now(), hinted_until = NULL
    WHERE id = ANY(CAST(:ids AS bigint[])) AND state IN ('pending', 'retrying')
    """
)


def run_now(connection: Connection, job_ids: Sequence[int]) -> int:
    """Let jobs that wait for their next attempt have it now; returns how many."""
    return connection.execute(_RUN_NOW, {"ids": arrays.literal(job_ids)}).rowcount


def _arrays(held: Sequence[Lease | Failure]) -> dict[str, str]:
    return {
        "ids": arrays.literal(each.id for each in held),
        "attempts": arrays.literal(each.attempt for each in held),
    }
