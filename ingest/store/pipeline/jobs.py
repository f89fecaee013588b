"""Jobs and their attempts: every transition. No other module writes these tables.

The file is long because the transitions have one home: a reader sees in one place all that can
happen to a job, and a test holds that no other file can change one.

       ┌── made by admit ──┐
       ▼                   ▼
    pending ──claim──▶ running ──finish──▶ succeeded
       ▲                 │ fail
       │                 ├───▶ retrying ──claim──▶ running
       │                 └───▶ dead
       └──── requeue (replay), from any state but running
    pending ──take back──▶ what it was; removed, if the replay made it
    running ──give back──▶ pending            it was claimed behind another, which did not succeed

    pending, retrying ──discard──▶ dead       an operator gives it up; a dead job is marked so
    any but succeeded ──revoke──▶ dead        its event is erased; likewise marked

The jobs of a processor with an order run one after another for each key. Those that are behind
another are due at infinity; ending the one ahead wakes them (ingest.store.pipeline.ordering).

Jobs that no worker may or can take now are parked: they wait, and the relay does not look at them.
Unparked, they continue as they were. A job is parked because its processor is paused, because the
processor's breaker is open (ingest.store.pipeline.breakers), because no live worker has the
processor ("unknown"), or because no worker that has it consumes the job's queue ("unconsumed").

A row moves by compare-and-set: the statement names the state that it expects, and a row that it
does not return could not be moved. The attempt number fences what a worker may do with a running
job: a later claim has another number.
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, TextClause

from ingest.errors import LeaseLost
from ingest.sources import operator
from ingest.store import arrays
from ingest.store.loose_scan import waiting_queues
from ingest.store.pipeline import breakers, metrics, ordering
from ingest.store.pipeline.breaker_state import Sign
from ingest.store.pipeline.metrics import NOTE, Note
from ingest.store.sql import statement


class Outcome(enum.StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DISCARDED = "discarded"
    """The processor said that no retry can help."""
    SNOOZED = "snoozed"
    """The processor asked to run later; does not count as a failure."""
    TIMED_OUT = "timed_out"
    LOST = "lost"
    """The worker process ended, or stalled past its lease, while it ran the job."""
    RELEASED = "released"
    """The worker was told to end, and the drain time was over; or its process ended, or stalled,
    while it ran another job of the batch; or the target was down, and the processor's breaker open.
    Does not count as a failure."""


ANY_SOURCE = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJobs:
    """The jobs to make for events of a type: for which processor, and how."""

    type: str
    """A `*` stands for any characters."""
    processor: str
    queue: str
    max_attempts: int
    claimed: int = 0
    """How many jobs of a batch the admitting worker claims as they are made; none of a processor
    with an order."""
    is_ordered: bool = False
    """Whether the processor has an order per key."""
    source: str = ANY_SOURCE
    """Whose events; those that an operator made of them by editing are among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """A worker that claims the jobs that it makes."""

    worker: str
    lease_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRef:
    """A job that may be claimed."""

    id: int
    processor: str
    queue: str
    trigger: str


# A tuple is made in a fifth of the time of a frozen dataclass, and each job needs some.
class ClaimedJob(NamedTuple):
    """A job that this worker holds until its lease ends, with its event."""

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
    """As it is stored. None: the bodies of its day were dropped, or it was erased."""
    replay: int | None = None
    """The last replay that requeued it."""
    body_key: str | None = None
    """The id of the key that the body is encrypted with; None: it is in clear."""
    key: UUID | None = None
    """What it is kept in order by; None: its processor has no order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedRuns:
    """Runs of consecutive jobs of some keys, which this worker holds."""

    jobs: list[ClaimedJob]
    """In the order received, so those of a key are in their order."""
    is_full: bool
    """Whether there was no room for more, so that some jobs may not have been looked at."""


class Lease(NamedTuple):
    """A claim on a job; the attempt number is its fencing token."""

    id: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An attempt that did not succeed: what to record, and what comes next."""

    id: int
    attempt: int
    outcome: Outcome
    retry_in_s: float | None
    """Seconds until the next attempt; None: the job is dead."""
    rescued: bool = False
    """Whether the next attempt is a rescue instead of a retry: the job runs isolated."""
    error_type: str | None = None
    error_message: str | None = None
    traceback: str | None = None
    place: str | None = None
    """The module and the function that the error was raised in; None: there is no traceback."""
    sign: Sign | None = None
    """With a breaker: what the error says of the processor's target; None: nothing."""
    target_back_in_s: float | None = None
    """With a breaker: in how many seconds the target asked to be tried again; None: it did not
    say."""

    @property
    def counts(self) -> bool:
        """Return whether the attempt spends one of the job's `max_attempts`."""
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
    "breaker_open": "its target is down, and its breaker open",
    "unknown": "no live worker has it",
    "unconsumed": "no worker that has it consumes its queue",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedJobs:
    """The parked jobs of a processor in a queue: how many, why, and since when."""

    processor: str
    queue: str
    reason: str
    """`paused`, `breaker_open`, `unknown` or `unconsumed`."""
    since: datetime | None
    jobs: int
    is_least: bool = False
    """Whether there may be more."""

    @property
    def why(self) -> str:
        """Return the reason as a clause for people."""
        return _WHY_PARKED[self.reason]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeued:
    """What a replay did to its jobs."""

    job_ids: tuple[int, ...]
    running: int
    """How many were left alone because they run."""


class TakenBack(NamedTuple):
    """A job that a replay has taken back."""

    job: int
    event: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedJobs:
    """How many jobs retention has removed, and how many attempts with them."""

    jobs: int
    attempts: int


# The part of the admit statement (ingest.store.pipeline.admission) that makes jobs. It also claims
# those that the admitting worker runs next, which saves a second row version and a round trip. The
# others are pending and count as dispatched, because the worker runs or dispatches them at once.
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
                                                WHERE paused_at IS NOT NULL))
                   AND p.processor <> ALL({not_open}) AS claimed
        FROM settled s
        JOIN unnest(CAST(:types AS text[]), CAST(:processors AS text[]), CAST(:queues AS text[]),
                    CAST(:max_attempts AS smallint[]), CAST(:claimed AS integer[]),
                    CAST(:sources AS text[]))
             AS p (type, processor, queue, max_attempts, claimed, source)
          ON {is_of_type} AND (s.processor IS NULL OR s.processor = p.processor)
             AND {is_of_source}
        WHERE s.delivery = s.event
    ) AS new_jobs
    ON CONFLICT (event, processor) DO NOTHING
    RETURNING id, event, processor, queue, state, attempt, failures, trigger, replay
"""
# A copy's id ends with its origin's slug and its own id (ingest.sources.operator).
_IS_OF_SOURCE = (
    f"(p.source IN ('{ANY_SOURCE}', s.source) OR s.source = '{operator.SLUG}' AND s.event_id"
    f" LIKE '%:{operator.MARK}' || p.source || ':{operator.MARK}' || repeat('_', 36))"
)
CREATE = _CREATE.format(
    is_of_type="p.type = s.type", is_of_source=_IS_OF_SOURCE, not_open=breakers.OPEN
)
# An event that matches several patterns of a processor makes one job: the first.
CREATE_BY_PATTERN = _CREATE.format(
    is_of_type="s.type LIKE p.type", is_of_source=_IS_OF_SOURCE, not_open=breakers.OPEN
)


_DUE_JOBS = statement(
    """
    SELECT id, processor, queue, trigger FROM ingest.jobs
    WHERE id = ANY(CAST(:ids AS bigint[]))
      AND state IN ('pending', 'retrying') AND next_attempt_at <= now()
    ORDER BY id
    """
)


def due(connection: Connection, job_ids: Sequence[int]) -> list[JobRef]:
    """Return those of `job_ids` that wait and are due."""
    rows = connection.execute(_DUE_JOBS, {"ids": arrays.literal(job_ids)})
    return [JobRef(**row) for row in rows.mappings()]


# Shared by `claim` and `dispatch_due`.
_MAY_RUN = (
    "processor <> ALL(ARRAY(SELECT name FROM ingest.processors WHERE paused_at IS NOT NULL))"
    f" AND {breakers.MAY_RUN}"
)


# The event is looked up by a range of one id, in the order of ids. Otherwise a planner that expects
# one row may read the whole index of types and ids instead of the primary key.
_CLAIM_SQL = """
    WITH {runs}claimed AS (
        UPDATE ingest.jobs
        SET state = 'running', attempt = attempt + 1, max_attempts = :max_attempts,
            worker = :worker, started_at = now(),
            lease_until = now() + make_interval(secs => :lease_s),
            next_attempt_at = NULL, hinted_until = NULL
        WHERE id = ANY(ARRAY({chosen}))
        RETURNING id, event, processor, attempt, failures, trigger, replay
    )
    SELECT c.id, c.processor, c.attempt, c.failures, c.trigger, c.event, e.source, e.event_id,
           e.type, e.received_at, d.body, c.replay, d.body_key{more}
    FROM claimed c
    CROSS JOIN LATERAL (
        SELECT source, event_id, type, received_at FROM ingest.events
        WHERE id BETWEEN c.event AND c.event
        ORDER BY id LIMIT 1
    ) AS e
    LEFT JOIN LATERAL (
        SELECT body, body_key FROM ingest.deliveries WHERE id = c.event LIMIT 1
    ) AS d ON true
    ORDER BY c.{order}
    """
_CLAIM = statement(
    _CLAIM_SQL.format(
        runs="",
        chosen=f"""
            SELECT id FROM ingest.jobs
            WHERE id = ANY(CAST(:ids AS bigint[]))
              AND state IN ('pending', 'retrying') AND next_attempt_at <= now()
              AND {_MAY_RUN}
            ORDER BY id
            FOR UPDATE SKIP LOCKED
        """,
        more="",
        order="id",
    )
)
# One snapshot says which jobs are heads of keys that are not in work, and what follows them. A
# second claim of such a key at the same moment waits for the first at the primary key, and then
# leaves it alone. Keys are inserted in one order, so that two claims of several do not deadlock.
#
# What follows a head is claimed with it up to the first job that is not due, has failed before or
# is parked: that is where the key stops. A retry runs alone: it may well fail again. The key is in
# work of the last of the run.
# `line` stops at the limit: of heads beyond it nothing is read.
_CLAIM_ORDERED = statement(
    _CLAIM_SQL.format(
        runs=f"""heads AS MATERIALIZED (
        SELECT o.job, o.key FROM ingest.ordered_jobs o
        WHERE o.job = ANY(CAST(:ids AS bigint[])) AND o.placed
          AND o.job = {ordering.HEAD.format(key="o.key")}
          AND (SELECT true FROM ingest.keys_in_work WHERE key = o.key LIMIT 1) IS NULL
    ), line AS MATERIALIZED (
        SELECT run.job, heads.key, run.event, run.job = heads.job AS is_head
        FROM heads CROSS JOIN LATERAL (
            SELECT job, event FROM ingest.ordered_jobs
            WHERE key = heads.key AND placed ORDER BY event LIMIT :of_a_key
        ) AS run
        LIMIT :limit
    ), free AS MATERIALIZED (
        SELECT id, state = 'pending' AND hinted_until IS DISTINCT FROM 'infinity' AS is_fresh
        FROM ingest.jobs
        WHERE id = ANY(ARRAY(SELECT job FROM line)) AND state IN ('pending', 'retrying')
          AND (next_attempt_at <= now() OR next_attempt_at = 'infinity') AND {_MAY_RUN}
        ORDER BY id
        FOR UPDATE SKIP LOCKED
    ), stops AS MATERIALIZED (
        SELECT DISTINCT ON (key) key, event FROM line
        WHERE (job IN (SELECT id FROM free WHERE is_fresh)) IS NOT TRUE
        ORDER BY key, event
    ), run AS MATERIALIZED (
        SELECT job, key, event FROM line
        WHERE (key IN (SELECT key FROM stops)) IS NOT TRUE
           OR is_head AND (job IN (SELECT id FROM free)) IS TRUE
           OR event < (SELECT event FROM stops WHERE key = line.key)
    ), begun AS (
        INSERT INTO ingest.keys_in_work (key, job)
        SELECT DISTINCT ON (key) key, job FROM run ORDER BY key, event DESC
        ON CONFLICT (key) DO NOTHING
        RETURNING key
    ), """,
        chosen="SELECT job FROM run WHERE (key IN (SELECT key FROM begun)) IS TRUE",
        more=""",
           (SELECT key FROM ingest.ordered_jobs WHERE job = c.id LIMIT 1) AS key,
           (SELECT count(*) FROM line) >= :limit AS is_full""",
        order="event",
    )
)


def claim(
    connection: Connection,
    job_ids: Sequence[int],
    *,
    worker: str,
    lease_s: float,
    max_attempts: int,
) -> list[ClaimedJob]:
    """Claim those of `job_ids` that wait, are due and whose processor is not paused. While its
    breaker is open, only the probe is claimed.

    The attempt number grows by one, and the lease runs by the server's clock. The caller commits
    this alone, before the work, so that a job that kills its process has spent an attempt.
    `max_attempts` is what their processor allows today.
    """
    parameters = _claiming(job_ids, worker, lease_s, max_attempts)
    return [ClaimedJob(*row) for row in connection.execute(_CLAIM, parameters)]


def claim_ordered(
    connection: Connection,
    job_ids: Sequence[int],
    *,
    worker: str,
    lease_s: float,
    max_attempts: int,
    limit: int,
    of_a_key: int = 1,
) -> ClaimedRuns:
    """Claim, as `claim` does, those jobs of a processor with an order that are the first of their
    key, if no other job of it runs; and with each what follows it and may run too.

    The caller runs those of a key one after another, and gives back what is behind one that does
    not succeed (`give_back`).

    Args:
        connection: in whose transaction to claim.
        job_ids: which may be claimed.
        worker: who claims.
        lease_s: how long the lease is, in seconds.
        max_attempts: what their processor allows today.
        limit: how many jobs, at most.
        of_a_key: how many of one key, at most.
    """
    parameters = _claiming(job_ids, worker, lease_s, max_attempts)
    rows = connection.execute(
        _CLAIM_ORDERED, parameters | {"limit": limit, "of_a_key": of_a_key}
    ).all()
    return ClaimedRuns(
        jobs=[ClaimedJob(*row[:-1]) for row in rows],
        is_full=any(row.is_full for row in rows),
    )


def _claiming(
    job_ids: Sequence[int], worker: str, lease_s: float, max_attempts: int
) -> dict[str, object]:
    return {
        "ids": arrays.literal(job_ids),
        "worker": worker,
        "lease_s": lease_s,
        "max_attempts": max_attempts,
    }


# Shared by `renew`, `give_back`, `finish` and `fail`. The index of ids finds the rows, and a hashed
# subplan fences them. IS TRUE keeps the planner from turning IN into a join, which it would choose
# by its estimate of the table.
_STILL_OURS = """
    id = ANY(CAST(:ids AS bigint[])) AND state = 'running'
    AND ((id, attempt) IN (
        SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:attempts AS integer[]))
    )) IS TRUE
"""


# The attempt has not begun, so its number is free again. What it was is pending: nothing else is
# claimed behind another.
_GIVE_BACK = statement(
    f"""
    UPDATE ingest.jobs
    SET state = 'pending', attempt = attempt - 1, lease_until = NULL, next_attempt_at = now()
    WHERE id = ANY(ARRAY(
        SELECT id FROM ingest.jobs WHERE {_STILL_OURS} AND trigger IN ('delivery', 'replay')
        ORDER BY id FOR UPDATE
    ))
    RETURNING id
    """
)


def give_back(connection: Connection, held: Sequence[Lease], *, keys: Sequence[UUID]) -> None:
    """Move jobs `running → pending` that were claimed behind another of their key, which did not
    succeed: they spend no attempt, and wait for it. Let others have those of `keys` of which none
    runs any more.

    The caller holds the jobs and has not begun them; it does nothing more by these leases.
    """
    given_back = list(connection.execute(_GIVE_BACK, _arrays(held)).scalars())
    put_behind(connection, given_back)
    wake(connection, ordering.let_go(connection, keys))


_RENEW = statement(
    f"""
    UPDATE ingest.jobs SET lease_until = now() + make_interval(secs => :lease_s)
    WHERE {_STILL_OURS}
    RETURNING id
    """
)


def renew(connection: Connection, held: Sequence[Lease], *, lease_s: float) -> set[int]:
    """Extend the leases that are still held; return the ids of their jobs."""
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
    """Move jobs `running → succeeded`, in the transaction that holds the processor's effects.

    `notes` are added to the minute's metrics.

    Raises:
        LeaseLost: some of them are no longer held; the transaction must roll back.
    """
    _all_finished(connection, _FINISH, held, notes)


# The job is locked before its place and its key, as everywhere: who takes jobs back from a worker
# that stalled would deadlock with it.
_FINISH_ORDERED = statement(
    f"""
    WITH noted AS ({NOTE}), finished AS (
        UPDATE ingest.jobs
        SET state = 'succeeded', finished_at = clock_timestamp(), lease_until = NULL
        WHERE {_STILL_OURS}
        RETURNING id
    ), gone AS (
        DELETE FROM ingest.ordered_jobs WHERE job = ANY(ARRAY(SELECT id FROM finished))
        RETURNING key
    ), keys AS MATERIALIZED (
        SELECT DISTINCT key FROM gone WHERE key IS NOT NULL
    ), idle AS (
        DELETE FROM ingest.keys_in_work
        WHERE key = ANY(ARRAY(SELECT key FROM keys)) AND job = ANY(ARRAY(SELECT id FROM finished))
    )
    SELECT id, NULL AS key FROM finished
    UNION ALL
    SELECT NULL, key FROM keys
    """
)


def finish_ordered(
    connection: Connection, held: Sequence[Lease], notes: Iterable[Note] = (), *, hint_s: float
) -> list[JobRef]:
    """Do what `finish` does with jobs of a processor with an order; return those that were behind.

    For `hint_s` seconds the relay leaves those to the caller.

    Raises:
        LeaseLost: as `finish` does.
    """
    keys = _all_finished(connection, _FINISH_ORDERED, held, notes)
    return wake(connection, keys, hint_s=hint_s)


def _all_finished(
    connection: Connection, finishing: TextClause, held: Sequence[Lease], notes: Iterable[Note]
) -> list[UUID]:
    """Finish jobs; return the keys, if they have any, that may have another head now."""
    parameters = _arrays(held) | metrics.parameters(notes)
    rows = connection.execute(finishing, parameters).all()
    lost = frozenset(lease.id for lease in held) - {row.id for row in rows}
    if lost:
        raise LeaseLost(lost)
    return [row.key for row in rows if row.id is None]


# A row that another transaction has locked is not waited for: who locks jobs of a key in another
# order would deadlock. What is left out here, the relay finds (`mend_order`).
_PUT_BEHIND = statement(
    """
    WITH mine AS MATERIALIZED (
        SELECT o.job, (
            SELECT other.job FROM ingest.ordered_jobs AS other
            WHERE other.key = o.key AND other.placed AND other.event < o.event
            ORDER BY other.event DESC LIMIT 1
        ) AS ahead
        FROM ingest.ordered_jobs o WHERE o.job = ANY(CAST(:ids AS bigint[])) AND o.placed
    ), kept AS MATERIALIZED (
        SELECT job FROM ingest.ordered_jobs
        WHERE job = ANY(ARRAY(SELECT ahead FROM mine WHERE ahead IS NOT NULL))
        ORDER BY job FOR KEY SHARE SKIP LOCKED
    )
    UPDATE ingest.jobs SET next_attempt_at = 'infinity', hinted_until = NULL
    WHERE id = ANY(ARRAY(
        SELECT id FROM ingest.jobs
        WHERE id = ANY(ARRAY(SELECT job FROM mine WHERE ahead IN (SELECT job FROM kept)))
          AND state IN ('pending', 'retrying') AND next_attempt_at < 'infinity'
        ORDER BY id
        FOR UPDATE SKIP LOCKED
    ))
    """
)


def put_behind(connection: Connection, job_ids: Sequence[int]) -> None:
    """Make those of `job_ids` that are behind another of their key due at infinity.

    Who ends the one ahead waits until the transaction ends, and then wakes them."""
    connection.execute(_PUT_BEHIND, {"ids": arrays.literal(job_ids)})


# By the clock: the transaction may have begun long ago, with the processor's work. A head that is
# due already waited for its key, which another job had in work.
_WAKE = statement(
    f"""
    WITH heads AS MATERIALIZED (
        SELECT {ordering.HEAD.format(key="k.key")} AS job
        FROM unnest(CAST(:keys AS uuid[])) AS k (key)
    )
    UPDATE ingest.jobs
    SET next_attempt_at = least(next_attempt_at, clock_timestamp()),
        hinted_until = clock_timestamp() + make_interval(secs => :hint_s)
    WHERE id = ANY(ARRAY(
        SELECT id FROM ingest.jobs
        WHERE id = ANY(ARRAY(SELECT job FROM heads))
          AND state IN ('pending', 'retrying')
          AND (next_attempt_at = 'infinity' OR next_attempt_at <= clock_timestamp())
          AND hinted_until IS DISTINCT FROM 'infinity'
        ORDER BY id
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING id, processor, queue, trigger
    """
)


def wake(
    connection: Connection, keys: Sequence[UUID], *, hint_s: float | None = None
) -> list[JobRef]:
    """Make the heads of keys due that were behind another job; return them.

    Args:
        connection: in whose transaction to wake.
        keys: digests of keys, of which a job has ended or runs no more.
        hint_s: for so many seconds the relay leaves them to the caller; None: it dispatches them.
    """
    if not keys:
        return []
    rows = connection.execute(_WAKE, {"keys": arrays.literal(keys), "hint_s": hint_s})
    return [JobRef(**row) for row in rows.mappings()]


def wake_behind(connection: Connection, job_ids: Sequence[int]) -> None:
    """Wake what is behind those of `job_ids` that have ended or run no more; the relay dispatches
    it.

    To be called in the transaction that ended them, after it. Jobs without an order are none's
    head, and cost a look into an empty index.
    """
    wake(connection, ordering.forget(connection, job_ids))


_PLACED_S = 10
"""Seconds for which the relay leaves a job that was placed to the worker that placed it."""
_HELD_S = 300
"""Seconds for which the relay leaves a job that waits for its place to whoever can place it."""
# What waits for its place waits for others to be admitted or read: to dispatch it helps nobody. Who
# places it hints it anew. Placing takes turns, so none of these is being placed.
_HOLD_UNPLACED = statement(
    f"""
    UPDATE ingest.jobs SET hinted_until = now() + make_interval(secs => {_HELD_S})
    WHERE id = ANY(ARRAY(
        SELECT id FROM ingest.jobs
        WHERE id = ANY(ARRAY(
                  SELECT job FROM ingest.ordered_jobs
                  WHERE job = ANY(CAST(:ids AS bigint[])) AND NOT placed AND key IS NOT NULL
              ))
          AND state IN ('pending', 'retrying') AND hinted_until IS DISTINCT FROM 'infinity'
        ORDER BY id FOR UPDATE SKIP LOCKED
    ))
    RETURNING id
    """
)
_DUE_OF_PLACED = statement(
    f"""
    SELECT id, processor, queue, trigger,
           hinted_until > now() + make_interval(secs => {_PLACED_S}) AND hinted_until < 'infinity'
               AS is_held
    FROM ingest.jobs
    WHERE id = ANY(CAST(:ids AS bigint[]))
      AND state IN ('pending', 'retrying') AND next_attempt_at <= now()
    ORDER BY id
    """
)


def place(
    connection: Connection, processor: str, types: Iterable[str], also: Sequence[int] = ()
) -> list[JobRef]:
    """Place the jobs of a processor with an order (`ordering.place`); return those that are due,
    the first of their key. Hold those of `also` that cannot be placed yet: the relay leaves them to
    whoever can place them. `also` may have been placed before."""
    placed = ordering.place(connection, processor, types)
    known = set(placed)
    others = [id_ for id_ in also if id_ not in known]
    if placed:
        put_behind(connection, placed)
    if len(placed) == ordering.PLACED_AT_ONCE:  # there may be more: another worker places those
        forget_hint(connection, ordering.oldest_unplaced(connection, limit=1))
    elif others:
        ids = {"ids": arrays.literal(others)}
        unplaced = set(connection.execute(_HOLD_UNPLACED, ids).scalars())
        others = [id_ for id_ in others if id_ not in unplaced]
    if not placed and not others:
        return []
    due_now = connection.execute(_DUE_OF_PLACED, {"ids": arrays.literal([*placed, *others])}).all()
    if held := [row.id for row in due_now if row.is_held]:
        presume_known(connection, held, for_s=_PLACED_S)
    return [
        JobRef(id=row.id, processor=row.processor, queue=row.queue, trigger=row.trigger)
        for row in due_now
    ]


# Once in ten seconds for each processor: a worker may have ended before it placed what it could.
_TRY_AGAIN = statement(
    f"""
    UPDATE ingest.jobs SET hinted_until = NULL
    WHERE id = ANY(ARRAY(
        SELECT id FROM ingest.jobs
        WHERE id = ANY(CAST(:ids AS bigint[])) AND state IN ('pending', 'retrying')
          AND hinted_until BETWEEN now() + make_interval(secs => {_PLACED_S})
                               AND now() + make_interval(secs => {_HELD_S - _PLACED_S})
        FOR UPDATE SKIP LOCKED
    ))
    """
)


_ARE_BEHIND = statement(
    "SELECT id FROM ingest.jobs"
    " WHERE id = ANY(CAST(:ids AS bigint[])) AND next_attempt_at = 'infinity'"
)
# The job is locked before its place, as everywhere, so nobody who holds the place waits for it.
# What somebody else has locked, a later sweep finds.
_DISSOLVE = statement(
    """
    WITH locked AS MATERIALIZED (
        SELECT id FROM ingest.jobs
        WHERE id = ANY(ARRAY(
            SELECT job FROM ingest.ordered_jobs WHERE key = ANY(CAST(:keys AS uuid[])) AND placed
            LIMIT :limit
        ))
        ORDER BY id FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM ingest.ordered_jobs WHERE job = ANY(ARRAY(SELECT id FROM locked)) RETURNING job
    )
    UPDATE ingest.jobs SET next_attempt_at = now()
    WHERE id = ANY(ARRAY(SELECT job FROM gone)) AND next_attempt_at = 'infinity'
    """
)


def mend_order(connection: Connection, *, after: UUID, limit: int) -> UUID | None:
    """Wake what nobody has woken, of up to `limit` keys; return the last of them.

    None: there are no more keys. That is so after two jobs of a key ended at the same moment, where
    code of a release before ended them, or where the processor has no order any more.
    """
    heads = ordering.heads(connection, after=after, limit=limit)
    unplaced = ordering.oldest_unplaced(connection, limit=limit)
    if not heads and not unplaced:
        return None
    dissolved = [head.key for head in heads if not head.is_ordered]
    if dissolved:
        connection.execute(_DISSOLVE, {"keys": arrays.literal(dissolved), "limit": limit})
    ordering.let_go_of_idle(connection)
    kept = [head for head in heads if head.is_ordered]
    wake_behind(connection, [*(head.job for head in heads), *unplaced])
    ids = arrays.literal(head.job for head in kept)
    behind = set(connection.execute(_ARE_BEHIND, {"ids": ids}).scalars())
    wake(connection, [head.key for head in kept if head.job in behind])
    if unplaced:
        oldest = ordering.oldest_unplaced(connection, limit=1)
        connection.execute(_TRY_AGAIN, {"ids": arrays.literal(oldest)})
    return heads[-1].key if len(heads) == limit else None


# The values to record are looked up by the job's place in the arrays, again without a join.
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
                              error_type, error_message, traceback, place, release, replay)
        SELECT id, attempt, trigger, worker, started_at, clock_timestamp(),
               (CAST(:outcomes AS text[]))[place], (CAST(:error_types AS text[]))[place],
               (CAST(:error_messages AS text[]))[place], (CAST(:tracebacks AS text[]))[place],
               (CAST(:places AS text[]))[place], CAST(:release AS text), replay
        FROM held
    ), ungrouped AS (
        INSERT INTO ingest.ungrouped (job, number)
        SELECT id, attempt FROM held WHERE (CAST(:counts AS boolean[]))[place]
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


def fail(
    connection: Connection,
    failures: Sequence[Failure],
    *,
    release: str | None = None,
    may_be_ordered: bool = True,
) -> set[int]:
    """Move jobs `running → retrying` or `dead`, and keep the attempt.

    Return the ids of the jobs that were still held. `release` is that of the application whose
    processors failed; None: it is not known. `may_be_ordered` is False for those of a processor
    without an order.
    """
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
        "places": arrays.literal(failure.place for failure in failures),
        "release": release,
    }
    moved = set(connection.execute(_FAIL, parameters).scalars())
    if may_be_ordered:
        wake_behind(connection, sorted(moved))
    return moved


# Shared by `held_by` and `expired`.
_ABANDONED_COLUMNS = "jobs.id, jobs.attempt, jobs.failures, jobs.max_attempts, jobs.trigger"


_HELD_BY = statement(
    f"""
    SELECT {_ABANDONED_COLUMNS} FROM ingest.jobs
    WHERE id = ANY(ARRAY(
              SELECT id FROM ingest.jobs WHERE lease_until IS NOT NULL AND worker = :worker
          ))
      AND lease_until IS NOT NULL AND worker = :worker
    ORDER BY id
    FOR UPDATE
    """
)


def held_by(connection: Connection, worker: str) -> list[AbandonedJob]:
    """Return the running jobs that `worker` claimed, locked until the transaction ends.

    For a caller that knows the worker to be dead.
    """
    rows = connection.execute(_HELD_BY, {"worker": worker})
    return [AbandonedJob(**row) for row in rows.mappings()]


# Of a job that ran, the attempt is the row's own.
_CLAIM_FOR_THE_LOST = statement(
    """
    UPDATE ingest.jobs
    SET state = 'running', attempt = attempt + 1, worker = :worker, started_at = now(),
        lease_until = now(), next_attempt_at = NULL, hinted_until = NULL
    WHERE id = :id AND attempt = CAST(:attempt AS integer) - 1 AND state IN ('pending', 'retrying')
    RETURNING (SELECT key IS NULL FROM ingest.ordered_jobs WHERE job = jobs.id LIMIT 1) IS TRUE
    """
)


def claim_for_the_lost(connection: Connection, lease: Lease, *, worker: str) -> bool:
    """Claim the job whose key a lost worker was reading, as that worker: it spends an attempt.

    One that the worker had claimed itself is left alone. Return whether other jobs wait for the
    key, to come to their places.
    """
    parameters = {"id": lease.id, "attempt": lease.attempt, "worker": worker}
    return connection.execute(_CLAIM_FOR_THE_LOST, parameters).scalar() is True


_EXPIRED = statement(
    f"""
    SELECT {_ABANDONED_COLUMNS} FROM ingest.jobs
    WHERE lease_until <= now()
    ORDER BY lease_until LIMIT :limit
    FOR UPDATE SKIP LOCKED
    """
)


def expired(connection: Connection, *, limit: int) -> list[AbandonedJob]:
    """Return running jobs whose lease has ended, locked until the transaction ends."""
    rows = connection.execute(_EXPIRED, {"limit": limit})
    return [AbandonedJob(**row) for row in rows.mappings()]


_WAITING_QUEUES = waiting_queues("ingest.jobs", "due_at IS NOT NULL", due="due_at")


def queues(connection: Connection) -> list[str]:
    """Return the queues that have waiting jobs."""
    return list(connection.execute(_WAITING_QUEUES).scalars())


_DISPATCH_DUE = statement(
    f"""
    UPDATE ingest.jobs SET hinted_until = now() + make_interval(secs => :ttl_s)
    WHERE id = ANY(ARRAY(
        SELECT id FROM ingest.jobs
        WHERE queue = :queue AND due_at <= now() AND {_MAY_RUN}
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
    """Return the ids of due jobs of `queue` that Redis is not presumed to know.

    From now on Redis is presumed to know them, for `ttl_s` seconds. Jobs of the processors
    `unserved` are left out: no worker can take them.
    """
    parameters = {"queue": queue, "limit": limit, "ttl_s": ttl_s, "unserved": list(unserved)}
    return list(connection.execute(_DISPATCH_DUE, parameters).scalars())


# Shared by the functions that park jobs or move them to another queue.
_DUE = """
    WITH due AS MATERIALIZED (
        SELECT id, processor FROM ingest.jobs WHERE queue = :queue AND due_at <= now()
        ORDER BY due_at LIMIT :limit
    )"""


_DUE_OF_PROCESSORS = """
        id = ANY(ARRAY(
            SELECT id FROM ingest.jobs
            WHERE id = ANY(ARRAY(
                      SELECT id FROM due WHERE processor = ANY(CAST(:processors AS text[]))
                  ))
              AND due_at <= now(){unless}
            FOR UPDATE SKIP LOCKED
        ))"""


# A parked job is due at infinity. The processor is marked, so that the relay looks for parked jobs
# only where there are any.
_PARK = statement(
    f"""{_DUE}, parked AS (
        UPDATE ingest.jobs SET hinted_until = 'infinity'
        WHERE {_DUE_OF_PROCESSORS.format(unless=f" AND NOT {breakers.IS_PROBE}")}
        RETURNING processor
    ), noted AS (
        UPDATE ingest.processors SET parked = true
        WHERE name IN (SELECT processor FROM parked) AND NOT parked
    )
    SELECT count(*) FROM parked
    """
)


def park(connection: Connection, queue: str, processors: Sequence[str], *, limit: int) -> int:
    """Park the jobs of `processors` that are paused, or whose breaker is open, among the `limit` of
    `queue` that are due longest; not a probe.

    The relay need not look at them again. Return how many were parked.
    """
    parameters = {"queue": queue, "processors": list(processors), "limit": limit}
    return int(connection.execute(_PARK, parameters).scalar_one())


_UNPARK = statement(
    """
    WITH unparked AS (
        UPDATE ingest.jobs SET hinted_until = NULL
        WHERE id = ANY(ARRAY(
            SELECT id FROM ingest.jobs
            WHERE queue = :queue AND hinted_until = 'infinity'
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
    """Unpark up to `limit` jobs of `processors` that may run again; return how many."""
    parameters = {"queue": queue, "processors": list(processors), "limit": limit}
    return int(connection.execute(_UNPARK, parameters).scalar_one())


# A lock number of the pipeline's own, after those of the 16 slots of the totals.
_TAKE_TURN = statement("SELECT pg_try_advisory_xact_lock(1953460321, 16)")


def take_turn_to_park(connection: Connection) -> bool:
    """Return whether this transaction alone parks and unparks lanes; another relay may be at it."""
    return bool(connection.execute(_TAKE_TURN).scalar_one())


_DUE_PROCESSORS = statement(f"{_DUE} SELECT DISTINCT processor FROM due ORDER BY processor")


def due_processors(connection: Connection, queue: str, *, limit: int) -> list[str]:
    """Return the processors of the `limit` jobs of `queue` that are due longest."""
    parameters = {"queue": queue, "limit": limit}
    return list(connection.execute(_DUE_PROCESSORS, parameters).scalars())


_PARK_LANE = statement(
    f"""{_DUE}, moved AS (
        UPDATE ingest.jobs SET hinted_until = 'infinity'
        WHERE {_DUE_OF_PROCESSORS.format(unless="")}
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
    """Park a lane's jobs among the `limit` of its queue that are due longest, and record why.

    Return how many were parked. The caller has taken its turn (`take_turn_to_park`).
    """
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
            WHERE processor = :processor AND queue = :from AND hinted_until = 'infinity'
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
                      AND jobs.queue = :queue AND hinted_until = 'infinity')
    """
)


def unpark_lane(connection: Connection, lane: ParkedLane, *, queue: str, limit: int) -> int:
    """Unpark up to `limit` jobs of a lane into `queue`, where a worker takes them.

    Unparking the last job removes the lane's record. Return how many were unparked. The caller has
    taken its turn (`take_turn_to_park`).
    """
    parameters = {"processor": lane.processor, "from": lane.queue, "to": queue, "limit": limit}
    unparked = int(connection.execute(_UNPARK_LANE, parameters).scalar_one())
    if unparked < limit:
        connection.execute(_FORGET_LANE, {"processor": lane.processor, "queue": lane.queue})
    return unparked


_FOLLOW = statement(
    f"""{_DUE}, moved AS (
        UPDATE ingest.jobs SET queue = :to, hinted_until = NULL
        WHERE {_DUE_OF_PROCESSORS.format(unless="")}
        RETURNING 1
    )
    SELECT count(*) FROM moved
    """
)


def follow(
    connection: Connection, processor: str, *, from_queue: str, to_queue: str, limit: int
) -> int:
    """Move a processor's jobs to its present queue; return how many.

    Only the `limit` jobs of `from_queue` that are due longest are considered.
    """
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


# From lane to lane through the index of parked jobs, which also counts them.
_PARKED = statement(
    """
    WITH RECURSIVE lane AS (
        (SELECT processor, queue FROM ingest.jobs WHERE hinted_until = 'infinity'
         ORDER BY processor, queue LIMIT 1)
        UNION ALL
        SELECT following.* FROM lane CROSS JOIN LATERAL (
            SELECT processor, queue FROM ingest.jobs
            WHERE hinted_until = 'infinity' AND (processor, queue) > (lane.processor, lane.queue)
            ORDER BY processor, queue LIMIT 1
        ) AS following
    ), counted AS (
        SELECT processor, queue, (
            SELECT count(*) FROM (
                SELECT FROM ingest.jobs WHERE hinted_until = 'infinity'
                  AND jobs.processor = lane.processor AND jobs.queue = lane.queue
                LIMIT CAST(:most AS bigint)
            ) AS of_lane
        ) AS jobs
        FROM lane
    )
    SELECT counted.processor, counted.queue, counted.jobs,
           coalesce(counted.jobs = CAST(:most AS bigint), false) AS is_least,
           CASE WHEN paused_at IS NOT NULL THEN 'paused'
                WHEN reason IS NULL AND opened_at IS NOT NULL THEN 'breaker_open'
                ELSE coalesce(reason, 'paused') END AS reason,
           coalesce(paused_at, since, opened_at) AS since
    FROM counted
    LEFT JOIN ingest.processors ON processors.name = counted.processor
    LEFT JOIN ingest.breakers ON breakers.processor = counted.processor
    LEFT JOIN ingest.parked
           ON parked.processor = counted.processor AND parked.queue = counted.queue
    ORDER BY counted.jobs DESC, counted.processor, counted.queue
    """
)


def parked(connection: Connection, *, at_most: int | None = None) -> list[ParkedJobs]:
    """Count the parked jobs by processor and queue, the most first; `at_most` of each, or all."""
    rows = connection.execute(_PARKED, {"most": at_most}).mappings()
    return [ParkedJobs(**row) for row in rows]


# Of a bounded number of jobs that are parked and due, or in a line of limits, the one with the
# fewest failures, so that no job is probed to death, and then with the fewest attempts: a snooze
# and a lost worker may spend none. Lanes that no worker takes are left out, and what waits for its
# place behind an event whose key is not read: that one can be the probe.
_CHOOSE_PROBE = statement(
    """
    UPDATE ingest.jobs SET hinted_until = now() + make_interval(secs => :ttl_s)
    WHERE id = (
        SELECT id FROM ingest.jobs
        WHERE id = ANY(ARRAY(
                  (SELECT id FROM ingest.jobs
                   WHERE hinted_until = 'infinity' AND processor = :processor
                     AND next_attempt_at <= now()
                   LIMIT :examined)
                  UNION ALL
                  (SELECT job FROM ingest.limited_jobs
                   WHERE processor = :processor AND NOT claimed LIMIT :examined)
                  UNION ALL
                  (SELECT job FROM ingest.ordered_jobs
                   WHERE processor = :processor AND NOT placed AND key IS NULL
                   ORDER BY event LIMIT 1)
              ))
          AND state IN ('pending', 'retrying') AND next_attempt_at <= now()
          AND queue <> ALL(ARRAY(
              SELECT parked.queue FROM ingest.parked WHERE parked.processor = :processor
          ))
          AND (SELECT placed OR key IS NULL FROM ingest.ordered_jobs o
               WHERE o.job = jobs.id LIMIT 1) IS NOT FALSE
        ORDER BY failures, attempt, event LIMIT 1
        FOR UPDATE SKIP LOCKED
    )
    RETURNING id, attempt, queue
    """
)


class Probe(NamedTuple):
    """A job that is to find out whether its processor's target is back."""

    id: int
    attempt: int
    """How many it has had."""
    queue: str


def choose_probe(
    connection: Connection, processor: str, *, examined: int, ttl_s: float
) -> Probe | None:
    """Return a parked job that may run, unparked, of up to `examined` ones, or one that waits for
    a limit; None: there is none.

    The relay leaves it to the caller for `ttl_s` seconds.
    """
    parameters = {"processor": processor, "examined": examined, "ttl_s": ttl_s}
    row = connection.execute(_CHOOSE_PROBE, parameters).one_or_none()
    return None if row is None else Probe(*row)


# A probe of which no worker takes the queue any more is given up.
_IS_UNDER_WAY = statement(
    """
    SELECT 1 FROM ingest.jobs
    WHERE id = :id AND (
        (state = 'running' AND attempt = CAST(:attempt AS integer) + 1)
        OR (state IN ('pending', 'retrying') AND attempt = CAST(:attempt AS integer)
            AND next_attempt_at <= now() AND (processor, queue) NOT IN (
                SELECT parked.processor, parked.queue FROM ingest.parked
            ))
    )
    """
)


def is_under_way(connection: Connection, probe: tuple[int, int]) -> bool:
    """Return whether a probe runs, or still waits for the worker that claims it. `probe` is the
    job, and how many attempts it had when it was chosen."""
    parameters = {"id": probe[0], "attempt": probe[1]}
    return connection.execute(_IS_UNDER_WAY, parameters).scalar() is not None


_UNDO_DISPATCH = statement(
    "UPDATE ingest.jobs SET hinted_until = NULL"
    " WHERE id = ANY(CAST(:ids AS bigint[])) AND state IN ('pending', 'retrying')"
)


def undo_dispatch(connection: Connection, job_ids: Iterable[int]) -> None:
    """Undo `dispatch_due` for messages that were not sent."""
    connection.execute(_UNDO_DISPATCH, {"ids": arrays.literal(job_ids)})


# Of a row that another transaction has locked, the relay finds what is left out here.
_HINT = statement(
    """
    UPDATE ingest.jobs SET hinted_until = now() + make_interval(secs => :for_s)
    WHERE id = ANY(ARRAY(
        SELECT id FROM ingest.jobs
        WHERE id = ANY(CAST(:ids AS bigint[])) AND state IN ('pending', 'retrying')
          AND hinted_until IS DISTINCT FROM 'infinity'
        ORDER BY id
        FOR UPDATE SKIP LOCKED
    ))
    """
)


def presume_known(connection: Connection, job_ids: Iterable[int], *, for_s: float) -> None:
    """Have the relay leave waiting jobs alone for so many seconds; parked ones stay parked."""
    connection.execute(_HINT, {"ids": arrays.literal(job_ids), "for_s": for_s})


def forget_hint(connection: Connection, job_ids: Iterable[int]) -> None:
    """Have the relay dispatch waiting jobs once they are due; parked ones stay parked."""
    connection.execute(_HINT, {"ids": arrays.literal(job_ids), "for_s": None})


# What a job was is kept, so that it can be taken back. A job that waits for another replay still is
# what it was before that one.
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
            next_attempt_at = now() + make_interval(secs => requested.delay_s),
            hinted_until = NULL, finished_at = NULL, discarded_at = NULL,
            requeued_from = CASE
                WHEN chosen.state = 'pending'
                     AND CAST(chosen.requeued_from ->> 'by' AS bigint) = chosen.replay
                THEN chosen.requeued_from || jsonb_build_object('by', CAST(:replay AS bigint))
                ELSE jsonb_build_object(
                    'by', CAST(:replay AS bigint), 'replay', chosen.replay, 'state', chosen.state,
                    'trigger', chosen.trigger, 'failures', chosen.failures, 'queue', chosen.queue,
                    'next_attempt_at', chosen.next_attempt_at, 'finished_at', chosen.finished_at,
                    'discarded_at', chosen.discarded_at
                )
            END
        FROM unnest(CAST(:ids AS bigint[]), CAST(:delays_s AS float8[])) AS requested (id, delay_s)
        JOIN chosen USING (id)
        WHERE jobs.id = requested.id AND chosen.state <> 'running'
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
    """Move jobs from any state but `running` to `pending`, for a replay.

    Failures are counted from zero again; attempts stay.

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


# The index of replayed jobs is read backwards, so that workers, which take the oldest first, seldom
# have what is taken back. Who claims a job, or takes it back, is skipped by the other.
_TAKE_BACK = statement(
    """
    WITH chosen AS MATERIALIZED (
        SELECT id, attempt, requeued_from AS was FROM ingest.jobs
        WHERE replay = :replay AND state = 'pending'
          AND CAST(requeued_from ->> 'by' AS bigint) = :replay
        ORDER BY event DESC LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ), unkept AS (
        DELETE FROM ingest.attempts
        WHERE job = ANY(ARRAY(SELECT id FROM chosen WHERE was ->> 'state' = 'succeeded'))
          AND ((job, number) IN (SELECT id, attempt FROM chosen)) IS TRUE
    ), moved AS (
        UPDATE ingest.jobs
        SET state = was ->> 'state', trigger = was ->> 'trigger', queue = was ->> 'queue',
            failures = CAST(was ->> 'failures' AS smallint),
            replay = CAST(was ->> 'replay' AS bigint),
            next_attempt_at = CASE WHEN was ->> 'next_attempt_at' = 'infinity' THEN now()
                                   ELSE CAST(was ->> 'next_attempt_at' AS timestamptz) END,
            finished_at = CAST(was ->> 'finished_at' AS timestamptz),
            discarded_at = CAST(was ->> 'discarded_at' AS timestamptz),
            hinted_until = NULL, requeued_from = NULL
        FROM chosen WHERE jobs.id = chosen.id
        RETURNING jobs.id, jobs.event
    )
    SELECT id AS job, event FROM moved
    """
)


def take_back(connection: Connection, replay: int, *, limit: int) -> list[TakenBack]:
    """Move jobs that a replay requeued and nobody has claimed since to what they were before.

    A job that waited for an earlier replay is what it was before both. Return those moved, up to
    `limit`; jobs that are being claimed are left out.
    """
    rows = connection.execute(_TAKE_BACK, {"replay": replay, "limit": limit})
    return _released(connection, rows)


def _released(connection: Connection, rows: Iterable[Row[Any]]) -> list[TakenBack]:
    taken_back = [TakenBack(row.job, row.event) for row in rows]
    wake_behind(connection, [row.job for row in taken_back])
    return taken_back


_UNMAKE = statement(
    """
    WITH chosen AS MATERIALIZED (
        SELECT id, event FROM ingest.jobs
        WHERE replay = :replay AND state = 'pending' AND attempt = 0 AND id > :made_after
          AND (SELECT true FROM ingest.unadmitted WHERE delivery = jobs.event LIMIT 1) IS NULL
        ORDER BY event DESC LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ), removed AS (
        DELETE FROM ingest.jobs WHERE id = ANY(ARRAY(SELECT id FROM chosen)) RETURNING id, event
    ), unhandled AS (
        INSERT INTO ingest.unhandled (event)
        SELECT DISTINCT event FROM removed
        WHERE (SELECT true FROM ingest.jobs
               WHERE jobs.event = removed.event AND jobs.id <> ALL(ARRAY(SELECT id FROM chosen))
               LIMIT 1) IS NULL
        ON CONFLICT DO NOTHING
    )
    SELECT id AS job, event FROM removed
    """
)


def unmake(connection: Connection, replay: int, *, made_after: int, limit: int) -> list[TakenBack]:
    """Remove jobs that a replay had made and nobody has claimed; their events lack them again.

    Return those removed, up to `limit`. The caller has kept replays from admitting more events
    (`turns.hold_alone`).

    Args:
        connection: in whose transaction to remove.
        replay: the row in `replays`.
        made_after: the last job that there was when the replay began.
        limit: how many, at most.
    """
    parameters = {"replay": replay, "made_after": made_after, "limit": limit}
    return _released(connection, connection.execute(_UNMAKE, parameters))


# A discard is recorded as an attempt with a number, which gives it its place in the history.
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
            next_attempt_at = NULL, hinted_until = NULL,
            replay = coalesce(CAST(:replay AS bigint), jobs.replay)
        FROM chosen WHERE jobs.id = chosen.id
        RETURNING jobs.id, jobs.attempt, chosen.trigger
    ), kept AS (
        INSERT INTO ingest.attempts (job, number, trigger, started_at, finished_at, outcome,
                              error_message, replay)
        SELECT id, attempt, trigger, now(), now(), 'discarded', :why, :replay FROM moved
    )
    SELECT id FROM moved
    """
)


def discard(connection: Connection, job_ids: Sequence[int], *, replay: int | None, why: str) -> int:
    """Move jobs `pending` or `retrying → dead`, and mark dead ones: an operator gives them up.

    Running jobs are left alone. Return how many were discarded.

    Args:
        job_ids: the jobs.
        replay: the row in `replays` that says who and why, if there is one.
        why: a sentence, kept with the attempt that records it.
    """
    parameters = {"ids": arrays.literal(job_ids), "replay": replay, "why": why}
    discarded = list(connection.execute(_DISCARD, parameters).scalars())
    wake_behind(connection, discarded)
    return len(discarded)


# A running attempt ends here, under its own number: its worker does not hold the job any more.
_REVOKE = statement(
    """
    WITH chosen AS MATERIALIZED (
        SELECT id, trigger, state, worker, started_at FROM ingest.jobs
        WHERE event = ANY(CAST(:events AS uuid[])) AND discarded_at IS NULL
          AND state <> 'succeeded'
        ORDER BY id
        FOR UPDATE
    ), moved AS (
        UPDATE ingest.jobs
        SET state = 'dead', discarded_at = now(), finished_at = now(), next_attempt_at = NULL,
            hinted_until = NULL, lease_until = NULL,
            attempt = attempt + CASE WHEN chosen.state = 'running' THEN 0 ELSE 1 END
        FROM chosen WHERE jobs.id = chosen.id
        RETURNING jobs.id, jobs.attempt, chosen.trigger, chosen.state, chosen.worker,
                  chosen.started_at
    ), kept AS (
        INSERT INTO ingest.attempts (job, number, trigger, worker, started_at, finished_at,
                              outcome, error_message)
        SELECT id, attempt, trigger, CASE WHEN state = 'running' THEN worker END,
               CASE WHEN state = 'running' THEN started_at ELSE now() END, now(), 'discarded', :why
        FROM moved
    )
    SELECT id FROM moved
    """
)


def revoke(connection: Connection, events: Sequence[UUID], *, why: str) -> int:
    """Discard every job of events that has not succeeded, running ones too; return how many.

    A worker that runs one of them cannot finish it: its effects are rolled back. `why` is a
    sentence, kept with the attempt that records it.
    """
    parameters = {"events": arrays.literal(events), "why": why}
    revoked = list(connection.execute(_REVOKE, parameters).scalars())
    wake_behind(connection, revoked)
    return len(revoked)


_FORGET_ERRORS = """
    UPDATE ingest.attempts SET error_message = NULL, traceback = NULL
    WHERE {} AND (error_message IS NOT NULL OR traceback IS NOT NULL)
"""
_FORGET_ERRORS_OF_EVENTS = statement(
    _FORGET_ERRORS.format(
        "job = ANY(ARRAY(SELECT id FROM ingest.jobs WHERE event = ANY(CAST(:events AS uuid[]))))"
    )
)
_FORGET_ERRORS_OF_ATTEMPTS = statement(
    _FORGET_ERRORS.format(
        "(job, number) IN (SELECT * FROM unnest("
        "CAST(:jobs AS bigint[]), CAST(:numbers AS integer[])))"
    )
)


def forget_errors_of_events(connection: Connection, events: Sequence[UUID]) -> int:
    """Erase what the attempts at events failed with, but for its type; return how many did."""
    return connection.execute(_FORGET_ERRORS_OF_EVENTS, {"events": arrays.literal(events)}).rowcount


def forget_errors(connection: Connection, attempts: Sequence[tuple[int, int]]) -> int:
    """Erase what attempts failed with, each named by its job and its number; return how many."""
    parameters = {
        "jobs": arrays.literal(job for job, _ in attempts),
        "numbers": arrays.literal(number for _, number in attempts),
    }
    return connection.execute(_FORGET_ERRORS_OF_ATTEMPTS, parameters).rowcount


_RUN_NOW = statement(
    """
    UPDATE ingest.jobs SET next_attempt_at = now(), hinted_until = NULL
    WHERE id = ANY(CAST(:ids AS bigint[])) AND state IN ('pending', 'retrying')
    """
)


def run_now(connection: Connection, job_ids: Sequence[int]) -> int:
    """Make the next attempt of waiting jobs due now; return how many."""
    return connection.execute(_RUN_NOW, {"ids": arrays.literal(job_ids)}).rowcount


FINISHED_BEFORE = """
    ((state = 'succeeded' OR discarded_at IS NOT NULL)
     AND greatest(finished_at, discarded_at) < :before) IS TRUE
"""
"""The condition that a job has ended for good before a time: a dead letter only by a discard."""
_REMOVE_ATTEMPTS = statement(
    f"""
    DELETE FROM ingest.attempts WHERE job = ANY(ARRAY(
        SELECT id FROM ingest.jobs
        WHERE event = ANY(CAST(:events AS uuid[])) AND {FINISHED_BEFORE}
        ORDER BY event FOR UPDATE
    ))
    """
)
_REMOVE = statement(
    f"""
    DELETE FROM ingest.jobs WHERE event = ANY(CAST(:events AS uuid[])) AND {FINISHED_BEFORE}
    """
)
_REMAIN = statement(
    "SELECT EXISTS (SELECT FROM ingest.jobs WHERE event = ANY(CAST(:events AS uuid[])))"
)


def remove(
    connection: Connection, events: Sequence[UUID], *, before: datetime
) -> RemovedJobs | None:
    """Remove the jobs of `events` with their attempts, for retention; return how many.

    Return None if a job has not ended by `before`: then the transaction must roll back.
    """
    parameters = {"events": arrays.literal(events), "before": before}
    attempts = connection.execute(_REMOVE_ATTEMPTS, parameters).rowcount
    removed = connection.execute(_REMOVE, parameters).rowcount
    if connection.execute(_REMAIN, {"events": parameters["events"]}).scalar_one():
        return None
    return RemovedJobs(jobs=removed, attempts=attempts)


def _arrays(held: Sequence[Lease | Failure]) -> dict[str, str]:
    return {
        "ids": arrays.literal(lease.id for lease in held),
        "attempts": arrays.literal(lease.attempt for lease in held),
    }
