"""The schedules of periodic processors, and storing a run.

A run is stored, admitted and noted in one transaction, with the schedule's row locked. So two
relays make it once, and a relay that dies in between has made nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from ingest import queues
from ingest.errors import NotFound
from ingest.ids import RANDOM_BYTES, delivery_id
from ingest.sources.schedule import SLUG, Run, event_type
from ingest.store.pipeline import admission, deliveries
from ingest.store.pipeline.deliveries import Delivery
from ingest.store.pipeline.jobs import NewJobs
from ingest.store.reports.heartbeats import ALIVE_FOR
from ingest.store.server_time import server_time
from ingest.store.sql import statement

RUNS_EXAMINED = 1_000
"""Runs that are looked through for one that is unfinished."""

Random = Callable[[int], bytes]
"""As `os.urandom`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRecord:
    """When a periodic processor is due, and its last run."""

    expression: str
    """A cron expression: minute, hour, day of month, month, day of week."""
    zone: str
    """The time zone in which it is read."""
    missed: str
    """Which missed due times get a run: `latest`, `all` or `none`."""
    overlap: bool
    """Whether a run may begin while another is unfinished."""
    next_due_at: datetime
    """When a run is due; a time that has passed: it cannot begin."""
    last_due_at: datetime | None
    """When its last run was due; None: there was none."""
    last_event: UUID | None
    """The event of its last run, one that a person asked for included."""
    last_state: str | None
    """What has become of that run: the state of its job; None: there is none, or no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSchedule:
    """A schedule as the relay sees it."""

    processor: str
    expression: str
    zone: str
    missed: str
    overlap: bool
    next_due_at: datetime
    skipped: int
    """Due times since the last run that have none."""
    last_due_at: datetime | None
    queue: str
    max_attempts: int
    is_paused: bool
    is_unfinished: bool
    """Whether the last run has not come to an end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A schedule as a worker registers it."""

    processor: str
    expression: str
    zone: str
    missed: str
    overlap: bool
    next_due_at: datetime
    """The first due time from now on."""


_FORGET = statement(
    "DELETE FROM ingest.schedules WHERE processor = ANY(CAST(:processors AS text[]))"
)
# A run that is due already stays due, whatever the new expression says.
_REGISTER = statement(
    """
    INSERT INTO ingest.schedules (processor, expression, zone, missed, overlap, next_due_at)
    VALUES (:processor, :expression, :zone, :missed, :overlap, :next_due_at)
    ON CONFLICT (processor) DO UPDATE
    SET expression = excluded.expression, zone = excluded.zone, missed = excluded.missed,
        overlap = excluded.overlap,
        next_due_at = CASE
            WHEN schedules.expression = excluded.expression AND schedules.zone = excluded.zone
                 OR schedules.next_due_at <= now()
            THEN schedules.next_due_at ELSE excluded.next_due_at END
    """
)


def register(connection: Connection, periodic: Iterable[Declared], others: Iterable[str]) -> None:
    """Record the schedules of a worker's processors; `others` are those that have none (any more).

    A new schedule counts from now on. What a changed one was due for already stays due.
    """
    connection.execute(_FORGET, {"processors": sorted(others)})
    for declared in sorted(periodic, key=lambda declared: declared.processor):
        connection.execute(
            _REGISTER,
            {
                "processor": declared.processor,
                "expression": declared.expression,
                "zone": declared.zone,
                "missed": declared.missed,
                "overlap": declared.overlap,
                "next_due_at": declared.next_due_at,
            },
        )


_RECORDS = statement(
    """
    SELECT s.processor, s.expression, s.zone, s.missed, s.overlap, s.next_due_at, s.last_due_at,
           s.last_event, j.state AS last_state
    FROM ingest.schedules s
    LEFT JOIN ingest.jobs j ON j.event = s.last_event AND j.processor = s.processor
    """
)


def records(connection: Connection) -> dict[str, ScheduleRecord]:
    """Return the schedule of each periodic processor."""
    rows = [dict(row) for row in connection.execute(_RECORDS).mappings()]
    return {row.pop("processor"): ScheduleRecord(**row) for row in rows}


_OVERDUE = statement(
    """
    SELECT s.processor, s.next_due_at FROM ingest.schedules s
    JOIN ingest.processors p ON p.name = s.processor
    WHERE s.next_due_at < now() AND p.paused_at IS NULL AND EXISTS (
        SELECT FROM ingest.processes w
        WHERE w.kind = 'worker' AND w.seen_at > now() - CAST(:alive_for AS interval)
          AND s.processor = ANY(w.processors)
    )
    """
)


def overdue(connection: Connection) -> dict[str, datetime]:
    """Return when each processor was due that is not paused, that a live worker has, and of which
    no run has begun since."""
    rows = connection.execute(_OVERDUE, {"alive_for": ALIVE_FOR})
    return {row.processor: row.next_due_at for row in rows}


_SOONEST = statement(
    """
    SELECT s.processor, EXTRACT(EPOCH FROM s.next_due_at - now()) AS due_in_s
    FROM ingest.schedules s
    JOIN ingest.processors p ON p.name = s.processor AND p.paused_at IS NULL
    ORDER BY s.next_due_at LIMIT 1
    """
)


def soonest(connection: Connection) -> tuple[str, float] | None:
    """Return the processor that is due next and in how many seconds, negative: it is overdue;
    None: none is periodic, or all are paused."""
    row = connection.execute(_SOONEST).first()
    return None if row is None else (row.processor, float(row.due_in_s))


_STORED = """
    SELECT s.processor, s.expression, s.zone, s.missed, s.overlap, s.next_due_at, s.skipped,
           s.last_due_at, p.queue, p.max_attempts, p.paused_at IS NOT NULL AS is_paused,
           coalesce(j.state IN ('pending', 'running', 'retrying'), false) AS is_unfinished
    FROM ingest.schedules s
    JOIN ingest.processors p ON p.name = s.processor
    LEFT JOIN ingest.jobs j ON j.event = s.last_event AND j.processor = s.processor
"""
_ALL = statement(f"{_STORED} ORDER BY s.processor")
_ONE = statement(f"{_STORED} WHERE s.processor = :processor")
# One that was replayed is not the last.
_HAS_UNFINISHED = statement(
    """
    SELECT EXISTS (
        SELECT FROM (
            SELECT id FROM ingest.events WHERE type = :type ORDER BY id DESC LIMIT :limit
        ) AS run
        JOIN ingest.jobs j ON j.event = run.id AND j.processor = :processor
        WHERE j.state IN ('pending', 'running', 'retrying')
    )
    """
)
_LOCK = statement(
    "SELECT 1 FROM ingest.schedules WHERE processor = :processor FOR UPDATE SKIP LOCKED"
)
_WAIT_FOR_LOCK = statement("SELECT 1 FROM ingest.schedules WHERE processor = :processor FOR UPDATE")


def all_of_them(connection: Connection) -> list[StoredSchedule]:
    """Return every schedule, by the name of its processor."""
    return [StoredSchedule(**row) for row in connection.execute(_ALL).mappings()]


def lock(connection: Connection, processor: str) -> StoredSchedule | None:
    """Lock a schedule until the transaction ends, and return it; None: another has it now."""
    # Read after the lock, in a snapshot of its own: the run before may just have been stored.
    if connection.execute(_LOCK, {"processor": processor}).first() is None:
        return None
    return _one(connection, processor)


def wait_for_lock(connection: Connection, processor: str) -> StoredSchedule:
    """Lock a schedule until the transaction ends, and return it.

    Raises:
        NotFound: the processor is not periodic, or no worker has registered it.
    """
    connection.execute(_WAIT_FOR_LOCK, {"processor": processor})
    stored = _one(connection, processor)
    if stored is None:
        raise NotFound(
            f"No worker has registered a periodic processor {processor}.", reason="not_found"
        )
    return stored


def has_unfinished_run(connection: Connection, processor: str) -> bool:
    """Return whether any of the newest `RUNS_EXAMINED` runs of a processor, replayed ones included,
    has not come to an end."""
    parameters = {"processor": processor, "type": event_type(processor), "limit": RUNS_EXAMINED}
    return bool(connection.execute(_HAS_UNFINISHED, parameters).scalar_one())


def _one(connection: Connection, processor: str) -> StoredSchedule | None:
    row = connection.execute(_ONE, {"processor": processor}).mappings().first()
    return None if row is None else StoredSchedule(**row)


_IS_KNOWN = statement("SELECT 1 FROM ingest.events WHERE source = :source AND event_id = :event_id")
_NOTE_RUN = statement(
    """
    UPDATE ingest.schedules
    SET last_event = :event,
        last_due_at = CASE WHEN :by_hand THEN last_due_at ELSE :due_at END
    WHERE processor = :processor
    """
)


def store_run(
    connection: Connection, stored: StoredSchedule, run: Run, *, by: str, random: Random
) -> UUID | None:
    """Store a run of a locked schedule, with its job, and note it; return its event.

    Args:
        connection: in the transaction of the lock.
        stored: the schedule.
        run: what is due.
        by: who makes it.
        random: as `os.urandom`.

    Return None if this due time had its run before: the clock was set back.
    """
    name = run.name
    known = {"source": SLUG, "event_id": name.event_id}
    if connection.execute(_IS_KNOWN, known).first() is not None:
        return None
    now = server_time(connection)
    delivery = Delivery(
        id=delivery_id(int(now.timestamp() * 1000), random(RANDOM_BYTES)),
        source=SLUG,
        received_at=now,
        key_id=by,
        headers="[]",
        body=run.body,
        name=name,
        rejected=None,
    )
    deliveries.insert_own(connection, delivery, name, queue=queues.LIVE, processor=stored.processor)
    job = NewJobs(
        type=event_type(stored.processor),
        processor=stored.processor,
        queue=stored.queue,
        max_attempts=stored.max_attempts,
    )
    admission.admit(
        connection, [delivery.id], [job], replay_queue=queues.REPLAY, redispatch_after_s=0
    )
    connection.execute(
        _NOTE_RUN,
        {
            "processor": stored.processor,
            "event": delivery.id,
            "due_at": run.due_at,
            "by_hand": run.by_hand,
        },
    )
    return delivery.id


_ADVANCE = statement(
    "UPDATE ingest.schedules SET next_due_at = :next_due_at, skipped = :skipped"
    " WHERE processor = :processor"
)


def advance(connection: Connection, processor: str, *, next_due_at: datetime, skipped: int) -> None:
    """Record up to when it is decided which due times of a locked schedule get a run."""
    connection.execute(
        _ADVANCE, {"processor": processor, "next_due_at": next_due_at, "skipped": skipped}
    )
