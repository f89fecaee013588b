"""An event with everything that happened to it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, RowMapping

from ingest import ids
from ingest.errors import NotFound
from ingest.store.encryption.opening import to_show
from ingest.store.pipeline import breakers, limit_waits, ordering
from ingest.store.retention import progress
from ingest.store.search.filters import STATE_OF_EVENT
from ingest.store.sql import statement

_ALL = 2**31 - 1
"""No limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecord:
    """A delivery of the event.

    Body and headers are None once its day was dropped; the body also where it was erased, was not
    read, or cannot be decrypted.
    """

    id: UUID
    received_at: datetime
    conflict: bool
    kept: bool
    """Whether its body is still stored."""
    part_of: UUID | None
    """The delivery that it is an element of; None: it is a delivery."""
    key_id: str | None
    headers: list[tuple[str, str]] | None
    body: bytes | None
    unreadable: str | None = None
    """Why its body cannot be decrypted, as a sentence."""

    @property
    def position(self) -> int | None:
        """Return the place of an element in its delivery, from 0."""
        return None if self.part_of is None else ids.position(self.part_of, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """An attempt; it still runs if `outcome` is None."""

    number: int
    trigger: str
    worker: str | None
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    error_type: str | None
    error_message: str | None
    traceback: str | None
    replay: int | None
    replayed_by: str | None
    replayed_at: datetime | None
    replay_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job with its attempts, oldest first."""

    id: int
    processor: str
    queue: str
    state: str
    trigger: str
    attempt: int
    failures: int
    max_attempts: int
    next_attempt_at: datetime | None
    lease_until: datetime | None
    discarded_at: datetime | None
    replay: int | None
    """The replay that requeued it last."""
    parked: bool
    """Whether it is put aside: its processor is paused, its breaker is open, or no worker takes
    it."""
    breaker_open: bool
    """Whether it waits because the target of its processor is down, and is not the probe."""
    waits_for: UUID | None
    """Of a processor with an order: the event of the first unfinished job of its key, if that is
    another."""
    is_behind_dead: bool
    """Whether that job is a dead letter: it waits for a replay or discard of that."""
    limited_by: str | None
    """Of a processor with limits: what it waits for, if it is in the line."""
    attempts: tuple[AttemptRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventHistory:
    """An event with its deliveries, oldest first, and its jobs."""

    id: UUID
    source: str
    event_id: str
    type: str
    state: str
    received_at: datetime
    delivered: int
    """How many deliveries it has had."""
    deliveries: tuple[DeliveryRecord, ...]
    jobs: tuple[JobRecord, ...]


_EVENT = statement(
    f"""
    SELECT id, source, event_id, type, summary.state, received_at,
           1 + (SELECT count(*) FROM ingest.duplicates WHERE event = :id) AS delivered
    FROM ingest.events CROSS JOIN LATERAL ({STATE_OF_EVENT}) AS summary
    WHERE id = :id
    """
)


_DELIVERIES = statement(
    """
    SELECT known.id, known.received_at, known.conflict, d.body IS NOT NULL AS kept, d.part_of,
           d.key_id, d.headers, d.body_key,
           CASE WHEN :all OR known.id = :id OR (known.conflict AND known.nth <= :conflicts)
                THEN d.body END AS body
    FROM (
        SELECT id, received_at, false AS conflict, 0 AS nth FROM ingest.events WHERE id = :id
        UNION ALL
        (SELECT delivery, received_at, conflict,
                row_number() OVER (PARTITION BY conflict ORDER BY delivery)
         FROM ingest.duplicates WHERE event = :id ORDER BY delivery LIMIT :most)
    ) AS known
    LEFT JOIN ingest.deliveries d ON d.id = known.id
    ORDER BY known.id <> :id, known.id LIMIT :most
    """
)


def of_event(
    connection: Connection, event: UUID, *, most: int = _ALL, conflicts: int = _ALL
) -> EventHistory:
    """Return everything about an event.

    Args:
        connection: reads in its transaction.
        event: the event's id.
        most: how many deliveries to return, the first ones.
        conflicts: how many bodies to read of deliveries that differ from the first; without a
            limit, the bodies of all deliveries are read.

    Raises:
        NotFound: no event has that id.
    """
    row = connection.execute(_EVENT, {"id": event}).mappings().one_or_none()
    if row is None:
        raise _not_found(connection, event)
    parameters = {"id": event, "most": most, "conflicts": conflicts, "all": conflicts == _ALL}
    deliveries = connection.execute(_DELIVERIES, parameters).mappings()
    return EventHistory(
        **row,
        deliveries=tuple(_delivery(connection, delivery) for delivery in deliveries),
        jobs=jobs_of(connection, [event])[event],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryOfEvent:
    """A delivery of an event, without what was sent."""

    id: UUID
    received_at: datetime
    is_first: bool
    """Whether the event was made of it; the others are duplicates."""
    conflict: bool
    """Whether its content differs from the first's."""
    kept: bool
    """Whether its body is still stored."""
    part_of: UUID | None
    """The delivery of several events that it came in; None: it came alone."""
    key_id: str | None
    """Which of the source's secrets signed it; None: retention dropped the delivery."""


_ALL_DELIVERIES = statement(
    """
    SELECT known.id, known.received_at, known.is_first, known.conflict,
           d.body IS NOT NULL AS kept, d.part_of, d.key_id
    FROM (
        SELECT id, received_at, true AS is_first, false AS conflict FROM ingest.events
        WHERE id = :id AND CAST(:after AS uuid) IS NULL
        UNION ALL
        (SELECT delivery, received_at, false, conflict FROM ingest.duplicates
         WHERE event = :id AND delivery > coalesce(:after, CAST(:none AS uuid))
         ORDER BY delivery LIMIT :most)
    ) AS known
    LEFT JOIN ingest.deliveries d ON d.id = known.id
    ORDER BY NOT known.is_first, known.id LIMIT :most
    """
)


def deliveries(
    connection: Connection, event: UUID, *, most: int, after: UUID | None = None
) -> list[DeliveryOfEvent]:
    """Return the deliveries of an event: the one that it was made of, then the duplicates by their
    ids; or those after one of them.

    Raises:
        NotFound: no event has that id.
    """
    check(connection, event)
    after = UUID(int=0) if after == event else after  # a duplicate may have a smaller id than it
    parameters = {"id": event, "after": after, "none": UUID(int=0), "most": most}
    rows = connection.execute(_ALL_DELIVERIES, parameters).mappings()
    return [DeliveryOfEvent(**row) for row in rows]


def _delivery(connection: Connection, row: RowMapping) -> DeliveryRecord:
    fields = dict(row)
    key, stored = fields.pop("body_key"), fields.pop("body")
    shown = to_show(connection, stored, delivery=row["id"], key=key)
    return DeliveryRecord(**fields, body=shown.body, unreadable=shown.unreadable)


_CHECK = statement("SELECT 1 FROM ingest.events WHERE id = :id")


def check(connection: Connection, event: UUID) -> None:
    """Raise NotFound if there is no such event."""
    if connection.execute(_CHECK, {"id": event}).scalar() is None:
        raise _not_found(connection, event)


def _not_found(connection: Connection, event: UUID) -> NotFound:
    has_removed = progress.EVENTS in progress.read(connection)
    hint = " Retention may have removed it." if has_removed else ""
    return NotFound(f"There is no event {event}.{hint}", reason="not_found")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobName:
    """A job by its event and processor, with its state."""

    event: UUID
    processor: str
    state: str


_JOB = statement("SELECT event, processor, state FROM ingest.jobs WHERE id = :id")


def job(connection: Connection, identity: int) -> JobName:
    """Return the job of a number.

    Raises:
        NotFound: no job has that number.
    """
    row = connection.execute(_JOB, {"id": identity}).mappings().one_or_none()
    if row is None:
        raise NotFound(f"There is no job {identity}.", reason="not_found")
    return JobName(**row)


_JOBS = statement(
    f"""
    SELECT event, id, processor, queue, state, trigger, attempt, failures, max_attempts,
           nullif(next_attempt_at, 'infinity') AS next_attempt_at, lease_until, discarded_at,
           replay,
           coalesce(hinted_until = 'infinity', false) AS parked,
           state IN ('pending', 'retrying') AND processor = ANY({breakers.OPEN})
               AND NOT {breakers.IS_PROBE} AS breaker_open
    FROM ingest.jobs WHERE event = ANY(CAST(:events AS uuid[])) ORDER BY id
    """
)


# Ended attempts, and the attempt on the job's own row: its success, or the one that runs now.
_ATTEMPTS = statement(
    """
    SELECT known.*, r.requested_by AS replayed_by, r.requested_at AS replayed_at,
           r.reason AS replay_reason
    FROM (
        SELECT a.job, a.number, a.trigger, a.worker, a.started_at, a.finished_at, a.outcome,
               a.error_type, a.error_message, a.traceback, a.replay
        FROM ingest.attempts a JOIN ingest.jobs j ON j.id = a.job
        WHERE j.event = ANY(CAST(:events AS uuid[]))
        UNION ALL
        SELECT id, attempt, trigger, worker, started_at, finished_at,
               CASE WHEN state = 'succeeded' THEN state END, NULL, NULL, NULL, replay
        FROM ingest.jobs
        WHERE event = ANY(CAST(:events AS uuid[])) AND state IN ('succeeded', 'running')
    ) AS known
    LEFT JOIN ingest.replays r ON r.id = known.replay AND known.trigger = 'replay'
    ORDER BY known.job, known.number
    """
)


def jobs_of(connection: Connection, events: Sequence[UUID]) -> Mapping[UUID, tuple[JobRecord, ...]]:
    """Return the jobs of events with all their attempts; of an event without a job, nothing."""
    parameters = {"events": list(events)}
    attempts: dict[int, list[AttemptRecord]] = defaultdict(list)
    for row in connection.execute(_ATTEMPTS, parameters).mappings():
        fields: dict[str, Any] = dict(row)
        attempts[fields.pop("job")].append(AttemptRecord(**fields))
    jobs: dict[UUID, list[JobRecord]] = {event: [] for event in events}
    found = connection.execute(_JOBS, parameters).mappings().all()
    waiting = [row["id"] for row in found if row["state"] in ("pending", "retrying")]
    heads = ordering.heads_before(connection, waiting) if waiting else {}
    reasons = limit_waits.reasons(connection, waiting) if waiting else {}
    for row in found:
        fields = dict(row)
        of_event = jobs[fields.pop("event")]
        head = heads.get(row["id"])
        of_event.append(
            JobRecord(
                **fields,
                waits_for=head.event if head else None,
                is_behind_dead=head is not None and head.is_dead,
                limited_by=reasons.get(row["id"]),
                attempts=tuple(attempts[row["id"]]),
            )
        )
    return {event: tuple(records) for event, records in jobs.items()}
