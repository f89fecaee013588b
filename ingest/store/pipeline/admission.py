"""Admission: turn deliveries into events, duplicates and jobs, each once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row

from ingest.store import arrays, past_events
from ingest.store.loose_scan import waiting_queues
from ingest.store.pipeline import jobs, ordering
from ingest.store.pipeline.deliveries import erase_content
from ingest.store.pipeline.erased_names import erased_name
from ingest.store.pipeline.jobs import Claimant, ClaimedJob, JobRef, NewJobs
from ingest.store.search.body_conditions import escape
from ingest.store.sql import statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The result of admitting a batch of deliveries."""

    claimed: tuple[ClaimedJob, ...]
    """Jobs made and claimed: the worker holds them."""
    jobs: tuple[JobRef, ...]
    """Jobs made and pending, to be run or dispatched now."""
    duplicates: int
    conflicts: int
    unsettled: int
    """Left unadmitted, because another worker was admitting the same events."""


# Rows are locked and inserted in one order everywhere. So two workers that admit the same events
# wait for each other instead of deadlocking. An event that another transaction inserted after this
# statement's snapshot is neither inserted nor seen: its deliveries stay unadmitted for a second
# run.
#
# The statement leaves the planner no choice of joins, because the planner knows too little. If
# `unadmitted` was empty when it was analyzed, the planner expects one row and picks nested loops,
# which cost 16 times as much for 174 deliveries. So a window brings the rows of an event together,
# table rows are looked up one by one (LATERAL … LIMIT 1), membership is a hashed subplan (an IN
# that cannot become a join), and the FULL JOIN can only be hashed. Events that were just inserted
# are not looked up again. A body is returned once, however many processors have a job for it.
# OFFSET 0 makes `is_fresh` a column of `sorted`: it is asked for once, and no rows are copied.
#
# A duplicate of an event that retention has removed is found in `past_events`. That table is looked
# into before anything is inserted, so every snapshot that a removal allows shows the event there or
# in `events` (ingest.store.retention.events). While it is empty no digest is computed.
#
# An erased event may go by a digest of its id, in both tables, and has an empty fingerprint. Before
# the first erasure there is no key, and nothing is looked up by it.
#
# What a duplicate repeats is `gone` if its event was erased, or removed by retention. Of a removed
# event nothing says whom it was about, so a repetition of any of them goes again at once. What
# differs from the removed event is new, and stays.
_ADMIT_SQL = f"""
    WITH waiting AS MATERIALIZED (
        SELECT delivery, source, event_id, type, fingerprint, received_at, processor, replay,
               {erased_name("source", "event_id")} AS erased_id
        FROM ingest.unadmitted
        WHERE delivery = ANY(CAST(:ids AS uuid[]))
        ORDER BY delivery
        FOR UPDATE SKIP LOCKED
    ), taken AS NOT MATERIALIZED (
        SELECT delivery, source, type, fingerprint, received_at, processor, replay, erased_id,
               CASE WHEN erased_id IS NULL THEN event_id ELSE coalesce((
                   SELECT e.event_id FROM ingest.events e
                   WHERE e.source = waiting.source AND e.event_id = waiting.erased_id LIMIT 1
               ), event_id) END AS event_id
        FROM waiting
    ), batch AS MATERIALIZED (
        SELECT delivery, source, event_id, type, taken.fingerprint, received_at, processor, replay,
               first_value(delivery) OVER occurrence AS first,
               first_value(type) OVER occurrence AS first_type,
               first_value(taken.fingerprint) OVER occurrence AS first_fingerprint,
               past.event AS past_event, past.fingerprint AS past_fingerprint
        FROM taken
        LEFT JOIN LATERAL (
            SELECT event, fingerprint FROM ingest.past_events
            WHERE EXISTS (SELECT FROM ingest.past_events)
              AND digest IN ({past_events.digest("taken.source", "taken.event_id")},
                             {past_events.digest("taken.source", "taken.erased_id")})
            LIMIT 1
        ) AS past ON true
        WINDOW occurrence AS (PARTITION BY source, event_id ORDER BY delivery)
    ), fresh AS (
        INSERT INTO ingest.events (id, source, event_id, type, fingerprint, received_at)
        SELECT delivery, source, event_id, type, fingerprint, received_at
        FROM batch WHERE delivery = first AND past_event IS NULL
        ORDER BY source, event_id
        ON CONFLICT (source, event_id) DO NOTHING
        RETURNING id
    ), sorted AS NOT MATERIALIZED (
        SELECT *, first IN (SELECT id FROM fresh) AS is_fresh FROM batch
        OFFSET 0
    ), settled AS MATERIALIZED (
        SELECT b.delivery, b.source, b.event_id, b.received_at, b.processor, b.replay,
               CASE WHEN is_fresh THEN b.first ELSE coalesce(known.id, b.past_event) END AS event,
               CASE WHEN is_fresh THEN b.first_type ELSE known.type END AS type,
               CASE WHEN is_fresh THEN b.fingerprint <> b.first_fingerprint
                    WHEN coalesce(known.fingerprint, b.past_fingerprint) = '' THEN false
                    WHEN known.id IS NOT NULL THEN b.fingerprint <> known.fingerprint
                    ELSE {past_events.short("b.fingerprint")} <> b.past_fingerprint
               END AS conflict,
               NOT is_fresh AND CASE
                   WHEN coalesce(known.fingerprint, b.past_fingerprint) = '' THEN true
                   WHEN known.id IS NOT NULL THEN false
                   ELSE {past_events.short("b.fingerprint")} = b.past_fingerprint
               END AS gone
        FROM sorted b
        LEFT JOIN LATERAL (
            SELECT e.id, e.type, e.fingerprint FROM ingest.events e
            WHERE NOT b.is_fresh AND e.source = b.source AND e.event_id = b.event_id
            LIMIT 1
        ) AS known ON true
        WHERE is_fresh OR known.id IS NOT NULL OR b.past_event IS NOT NULL
    ), repeated AS (
        INSERT INTO ingest.duplicates (delivery, event, received_at, conflict)
        SELECT delivery, event, received_at, conflict FROM settled WHERE delivery <> event
        ON CONFLICT (delivery) DO NOTHING
        RETURNING conflict
    ), created AS ({{create}}
    ){{ordered}}, removed AS (
        DELETE FROM ingest.unadmitted
        WHERE delivery = ANY(ARRAY(SELECT delivery FROM settled))
    ), summary AS (
        SELECT (SELECT count(*) FROM repeated) AS duplicates,
               (SELECT count(*) FROM repeated WHERE conflict) AS conflicts,
               (SELECT count(*) FROM waiting) - count(*) AS unsettled,
               array_agg(delivery) FILTER (WHERE gone) AS gone
        FROM settled
    )
    SELECT created.id, created.processor, created.attempt, created.failures, created.trigger,
           created.event, s.source, s.event_id, s.type, s.received_at, d.body, created.replay,
           d.body_key, created.state, created.queue, summary.*
    FROM summary
    LEFT JOIN (
        SELECT *, CASE WHEN state = 'running' AND row_number() OVER (PARTITION BY event, state) = 1
                       THEN event END AS with_body
        FROM created
    ) AS created FULL JOIN settled s ON s.delivery = created.event ON true
    LEFT JOIN LATERAL (
        SELECT body, body_key FROM ingest.deliveries WHERE id = created.with_body LIMIT 1
    ) AS d ON true
    ORDER BY created.id
    """


# Exact types are joined by hash, patterns row by row: that one runs only where there are patterns.
# Jobs that are to be kept in order are noted only where there may be any.
_ADMIT = {
    (has_patterns, has_order): statement(
        _ADMIT_SQL.format(
            create=jobs.CREATE_BY_PATTERN if has_patterns else jobs.CREATE,
            ordered=ordering.NOTE_NEW if has_order else "",
        )
    )
    for has_patterns in (False, True)
    for has_order in (False, True)
}


def admit(
    connection: Connection,
    deliveries: Sequence[UUID],
    processors: Sequence[NewJobs],
    *,
    replay_queue: str,
    redispatch_after_s: float,
    claimant: Claimant | None = None,
) -> Admitted:
    """Turn unadmitted deliveries into events and jobs, or into duplicates.

    Each delivery is admitted once, however often and wherever this runs. The caller commits it
    alone. Bodies stay in PostgreSQL, except those of jobs that `claimant` claims as they are made.
    An event's first delivery that is unadmitted again, by a replay, gets the jobs that it lacks. A
    delivery of an event that retention has removed is a duplicate. Where a duplicate repeats an
    event that was erased or removed, its body and headers are erased in the same transaction.
    """
    has_patterns = any("*" in processor.type for processor in processors)
    ordered = sorted({processor.processor for processor in processors if processor.is_ordered})
    rows = connection.execute(
        _ADMIT[has_patterns, bool(ordered)],
        {
            "ids": arrays.literal(deliveries),
            "types": arrays.literal(
                escape(processor.type).replace("*", "%") if has_patterns else processor.type
                for processor in processors
            ),
            "processors": arrays.literal(processor.processor for processor in processors),
            "queues": arrays.literal(processor.queue for processor in processors),
            "max_attempts": arrays.literal(processor.max_attempts for processor in processors),
            "claimed": arrays.literal(
                processor.claimed if claimant else 0 for processor in processors
            ),
            **({"ordered": arrays.literal(ordered)} if ordered else {}),
            "sources": arrays.literal(processor.source for processor in processors),
            "worker": claimant.worker if claimant else None,
            "lease_s": claimant.lease_s if claimant else 0.0,
            "replay_queue": replay_queue,
            "redispatch_after_s": redispatch_after_s,
        },
    ).all()
    if rows[0].gone:
        erase_content(connection, rows[0].gone)
    return Admitted(
        claimed=tuple(_claimed([row for row in rows if row.state == "running"])),
        jobs=tuple(
            JobRef(id=row.id, processor=row.processor, queue=row.queue, trigger=row.trigger)
            for row in rows
            if row.state == "pending"
        ),
        duplicates=rows[0].duplicates,
        conflicts=rows[0].conflicts,
        unsettled=rows[0].unsettled,
    )


# A job that has a key is not claimed as it is made.
_COLUMNS_OF_A_JOB = ClaimedJob._fields.index("key")


def _claimed(rows: Iterable[Row[Any]]) -> list[ClaimedJob]:
    """Return jobs by the first columns of their rows; those of one event share its body."""
    claimed = [ClaimedJob(*row[:_COLUMNS_OF_A_JOB]) for row in rows]
    if all(job.body is not None for job in claimed):  # each event has one job, as a rule
        return claimed
    bodies = {job.event: job for job in claimed if job.body is not None}
    return [
        job._replace(body=first.body, body_key=first.body_key)
        if (first := bodies.get(job.event))
        else job
        for job in claimed
    ]


_WAITING_QUEUES = waiting_queues("ingest.unadmitted", "true", due="hint_at")


def queues(connection: Connection) -> list[str]:
    """Return the queues that have unadmitted deliveries."""
    return list(connection.execute(_WAITING_QUEUES).scalars())


_DISPATCH_OVERDUE = statement(
    """
    UPDATE ingest.unadmitted SET hint_at = now() + make_interval(secs => :ttl_s)
    WHERE delivery = ANY(ARRAY(
        SELECT delivery FROM ingest.unadmitted
        WHERE queue = :queue AND hint_at <= now()
        ORDER BY hint_at LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING delivery
    """
)


def dispatch_overdue(connection: Connection, queue: str, *, limit: int, ttl_s: float) -> list[UUID]:
    """Return deliveries of `queue` that should have been admitted by now.

    They are not returned again for `ttl_s` seconds.
    """
    parameters = {"queue": queue, "limit": limit, "ttl_s": ttl_s}
    return list(connection.execute(_DISPATCH_OVERDUE, parameters).scalars())


_UNDO_DISPATCH = statement(
    "UPDATE ingest.unadmitted SET hint_at = now() WHERE delivery = ANY(CAST(:ids AS uuid[]))"
)


def undo_dispatch(connection: Connection, deliveries: Sequence[UUID]) -> None:
    """Undo `dispatch_overdue` for messages that were not sent."""
    connection.execute(_UNDO_DISPATCH, {"ids": arrays.literal(deliveries)})
