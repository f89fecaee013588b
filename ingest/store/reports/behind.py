"""The backlog: what should have been done by now, how late that is, and where it is heading.

Behind are the deliveries that no worker has admitted, and the jobs that are due and that no worker
has claimed. A retry or a replay whose time is yet to come is not behind. What an operator has
paused, and what no worker can take, is held: it is counted apart, because no speed of the workers
changes it.

Whoever evaluates the alerts (ingest.alerts.watch) keeps a sample every few seconds, so that all who
ask are told the same beginning and speed. Each statement reads a bounded number of rows: where the
bound is reached, the counts are lower bounds, and say so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from ingest import queues
from ingest.store.pipeline import jobs
from ingest.store.pipeline.breakers import OPEN
from ingest.store.sql import statement

EXAMINED = 100_000
"""Deliveries that are counted at most, and jobs of each queue."""
LATE_AFTER_S = 10.0
"""The pipeline is behind once something has been due for longer: work takes seconds, and the relay
dispatches again after ten what was lost."""
_SPEED_WINDOW = timedelta(seconds=60)
"""The speed is measured over the last minute, or since the newest sample before it."""
_SHORTEST = timedelta(seconds=5)
"""Two counts that are closer together say little of a speed."""
_FRESH = timedelta(minutes=10)
"""Samples tell nothing of now if the newest is older: nobody has measured since."""
_KEPT = timedelta(days=8)
"""For so long samples are kept: a day more than the longest range of the overview."""
_SAMPLES_READ = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What is behind at one moment."""

    now: datetime
    """By the server's clock."""
    total: int
    """Deliveries and jobs."""
    deliveries: int
    """That no worker has admitted, and events that a replay admits again."""
    jobs: int
    """That are due, and that no worker has claimed."""
    is_least: bool
    """Whether there may be more than these counts say."""
    held: int
    """Jobs that are paused, or that no live worker can take. They are not among the others."""
    age_s: float
    """How long the oldest of the total has been due; 0: there is none."""
    since: datetime | None = None
    """Since when the pipeline is behind; None: it keeps up."""
    change_per_s: float | None = None
    """How fast the total grows, or shrinks if negative. None: it keeps up, or that is not known."""
    age_change: float | None = None
    """How many seconds later the oldest becomes in a second, likewise: 1 if nothing is done."""
    gone_in_s: float | None = None
    """When nothing will be behind at this speed; None: never, or that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What was behind at an earlier moment."""

    at: datetime
    total: int
    age_s: float
    is_least: bool


# In any order, 100,000 are counted in a quarter of the time that the order of their ids takes. The
# oldest is the first of the primary key, which holds the receipt. Entries of admitted deliveries at
# its beginning are passed quickly once their transactions are over.
_UNADMITTED = statement(
    """
    SELECT now() AS now,
           (SELECT count(*) FROM (
               SELECT FROM ingest.unadmitted WHERE replay IS NULL LIMIT :limit
           ) AS waiting) AS deliveries,
           (SELECT received_at FROM ingest.unadmitted WHERE replay IS NULL
            ORDER BY delivery LIMIT 1) AS since
    """
)


_READMITTED = statement(
    """
    SELECT count(*) AS deliveries, min(hint_at) AS since FROM (
        SELECT hint_at FROM ingest.unadmitted
        WHERE queue = :queue AND hint_at <= now() AND replay IS NOT NULL
        ORDER BY hint_at LIMIT :limit
    ) AS waiting
    """
)


# The index has the later of when a job is due and when its hint to Redis is taken for lost: ten
# seconds later by default, ten minutes at most. Retries after that are not read, however many.
_DUE = statement(
    f"""
    SELECT count(*) AS examined,
           count(*) FILTER (WHERE is_due AND NOT is_paused) AS due,
           count(*) FILTER (WHERE is_due AND is_paused) AS paused,
           min(next_attempt_at) FILTER (WHERE is_due AND NOT is_paused) AS since
    FROM unnest(CAST(:queues AS text[])) AS named (queue)
    CROSS JOIN LATERAL (
        SELECT next_attempt_at, next_attempt_at <= now() AS is_due,
               processor = ANY(ARRAY(
                   SELECT name FROM ingest.processors WHERE paused_at IS NOT NULL
               )) OR processor = ANY({OPEN}) AS is_paused
        FROM ingest.jobs
        WHERE queue = named.queue AND due_at IS NOT NULL
          AND due_at <= now() + interval '10 minutes'
        ORDER BY due_at LIMIT :limit
    ) AS waiting
    GROUP BY named.queue
    """
)


_PARKED = statement(
    """
    SELECT count(*) FROM (
        SELECT FROM ingest.jobs WHERE hinted_until = 'infinity' LIMIT :limit
    ) AS parked
    """
)


def read(connection: Connection) -> Backlog:
    """Return what is behind, since when, and at which speed that changes."""
    present = measure(connection)
    if present.age_s < LATE_AFTER_S:
        return present
    samples = _samples(connection, present.now)
    began = present.now - timedelta(seconds=present.age_s)
    if samples:
        began = min(began, _run_began(connection) or began)
    return judge(replace(present, since=began), samples)


def measure(connection: Connection) -> Backlog:
    """Return what is behind, without its history."""
    bound = {"limit": EXAMINED}
    unadmitted = connection.execute(_UNADMITTED, bound).one()
    again = connection.execute(_READMITTED, bound | {"queue": queues.REPLAY}).one()
    due = connection.execute(_DUE, bound | {"queues": jobs.queues(connection)}).all()
    parked = int(connection.execute(_PARKED, bound).scalar_one())
    deliveries, waiting = unadmitted.deliveries + again.deliveries, sum(row.due for row in due)
    beginnings = [unadmitted.since, again.since, *(row.since for row in due)]
    oldest = min((moment for moment in beginnings if moment is not None), default=unadmitted.now)
    counted = [unadmitted.deliveries, again.deliveries, *(row.examined for row in due)]
    return Backlog(
        now=unadmitted.now,
        total=deliveries + waiting,
        deliveries=deliveries,
        jobs=waiting,
        is_least=max(counted) >= EXAMINED,
        held=parked + sum(row.paused for row in due),
        age_s=max(0.0, (unadmitted.now - oldest).total_seconds()),
    )


def judge(present: Backlog, samples: Sequence[Sample]) -> Backlog:
    """Return the same with the speed at which it changes, by its samples, newest first."""
    before = _compared(present, samples)
    if before is None:
        return present
    passed_s = (present.now - before.at).total_seconds()
    age_change = (present.age_s - before.age_s) / passed_s
    if present.is_least or before.is_least:
        gone_in_s = present.age_s / -age_change if age_change < 0 else None
        return replace(present, age_change=age_change, gone_in_s=gone_in_s)
    change = (present.total - before.total) / passed_s
    gone_in_s = present.total / -change if change < 0 else None
    return replace(present, change_per_s=change, age_change=age_change, gone_in_s=gone_in_s)


def _compared(present: Backlog, samples: Sequence[Sample]) -> Sample | None:
    """Return the oldest sample of the last minute, or the newest before it."""
    earlier = [sample for sample in samples if present.now - sample.at >= _SHORTEST]
    recent = [sample for sample in earlier if present.now - sample.at <= _SPEED_WINDOW]
    return recent[-1] if recent else earlier[0] if earlier else None


_RECORD = statement(
    """
    WITH forgotten AS (
        DELETE FROM ingest.backlog_samples WHERE at < now() - CAST(:kept AS interval)
    )
    INSERT INTO ingest.backlog_samples (at, deliveries, jobs, age_s, is_least)
    VALUES (now(), :deliveries, :jobs, :age_s, :is_least)
    ON CONFLICT (at) DO NOTHING
    """
)


def record(connection: Connection) -> None:
    """Keep a sample of what is behind now, and forget those that are too old."""
    present = measure(connection)
    connection.execute(
        _RECORD,
        {
            "kept": _KEPT,
            "deliveries": present.deliveries,
            "jobs": present.jobs,
            "age_s": present.age_s,
            "is_least": present.is_least,
        },
    )


_SAMPLES = statement(
    """
    SELECT at, deliveries + jobs AS total, age_s, is_least FROM ingest.backlog_samples
    WHERE at >= :since AND at <= :until ORDER BY at DESC LIMIT :limit
    """
)


def _samples(connection: Connection, now: datetime) -> list[Sample]:
    """Return the samples of the last minutes, newest first."""
    parameters = {"since": now - _FRESH, "until": now, "limit": _SAMPLES_READ}
    rows = connection.execute(_SAMPLES, parameters).mappings()
    return [Sample(**row) for row in rows]


# Both steps go through the primary key from its end.
_RUN_BEGAN = statement(
    """
    SELECT at - make_interval(secs => age_s) FROM ingest.backlog_samples
    WHERE at > coalesce(
        (SELECT at FROM ingest.backlog_samples WHERE age_s < :late ORDER BY at DESC LIMIT 1),
        '-infinity'
    )
    ORDER BY at LIMIT 1
    """
)


def _run_began(connection: Connection) -> datetime | None:
    """Return since when all samples have been late; None: the newest was not."""
    began: datetime | None = connection.execute(_RUN_BEGAN, {"late": LATE_AFTER_S}).scalar()
    return began
