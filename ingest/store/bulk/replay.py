"""Replay: an operator's re-run of jobs, of events without one, of deliveries that were rejected.

Discard goes the same way: all that a selection means, a batch at a time, so that it can be paused,
cancelled, and gone on with after a restart."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from ingest import queues
from ingest.errors import InvalidEnvelope, NotFound
from ingest.sources.base import Source, encoded_headers
from ingest.store.pipeline import jobs
from ingest.store.reports.failures import ERROR_TYPE, RAISED_AT
from ingest.store.search.filters import DISCARDED, UNHANDLED, EventFilter, none_more_urgent, where
from ingest.store.sql import statement

BATCH = 500
_AHEAD_S = 30.0
REPLAY, DISCARD = "replay", "discard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a replay touches."""

    jobs: int = 0
    """Put back to pending, or discarded."""
    events: int = 0
    """Without the job in question: admitted again, which makes it."""
    running: int = 0
    """Jobs that run just now: left alone."""
    gone: int = 0
    """Jobs and events whose body was dropped: left alone, there is nothing to work on."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            jobs=self.jobs + other.jobs,
            events=self.events + other.events,
            running=self.running + other.running,
            gone=self.gone + other.gone,
        )

    @property
    def total(self) -> int:
        """Everything that is re-run."""
        return self.jobs + self.events


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an operation is."""

    counts: Counts
    """So far."""
    waits: bool = False
    """It is ahead of its rate: later."""
    has_ended: bool = False
    """There is nothing to do: it has finished, or was paused or cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A replay or a discard of all that a selection means, and how far it is."""

    id: int
    action: str
    status: str
    requested_at: datetime
    requested_by: str
    reason: str | None
    selection: EventFilter
    background: bool
    """The console runs it; otherwise the command that began it."""
    rate: float | None
    total: int | None
    counts: Counts
    finished_at: datetime | None
    problem: str | None
    """Why it failed."""


_HAS_BODY = "EXISTS (SELECT FROM ingest.deliveries WHERE deliveries.id = events.id)"


# What a job needs for an action; without its body there is nothing to work on.
_NEEDS = {REPLAY: _HAS_BODY, DISCARD: "true"}


def count(connection: Connection, selection: EventFilter, *, action: str = REPLAY) -> Counts:
    """What `run` would touch now."""
    found = where(selection)
    parameters = found.parameters | _job_parameters(selection)
    doable = f"jobs.state <> 'running' AND {_NEEDS[action]}"
    row = connection.execute(
        statement(
            f"""
            SELECT count(*) FILTER (WHERE {doable}) AS jobs,
                   count(*) FILTER (WHERE jobs.state = 'running') AS running,
                   count(*) FILTER (WHERE jobs.state <> 'running' AND NOT {_NEEDS[action]}) AS gone
            FROM ingest.jobs JOIN ingest.events ON events.id = jobs.event
            WHERE {found.sql} AND {_job_conditions(selection, action)}
            """
        ),
        parameters,
    ).one()
    counts = Counts(jobs=row.jobs, running=row.running, gone=row.gone)
    if action == REPLAY and _wants_events(selection):
        row = connection.execute(
            statement(
                f"""
                SELECT count(*) FILTER (WHERE {_HAS_BODY}) AS events,
                       count(*) FILTER (WHERE NOT {_HAS_BODY}) AS gone
                FROM ingest.events WHERE {found.sql} AND {_lacks_job(selection)}
                """
            ),
            parameters,
        ).one()
        counts += Counts(events=row.events, gone=row.gone)
    return counts


def by_processor(
    connection: Connection, selection: EventFilter, *, action: str = REPLAY
) -> list[tuple[str, int]]:
    """How many jobs of each processor `run` would touch now, the most first."""
    found = where(selection)
    rows = connection.execute(
        statement(
            f"""
            SELECT jobs.processor, count(*) AS jobs
            FROM ingest.jobs JOIN ingest.events ON events.id = jobs.event
            WHERE {found.sql} AND {_job_conditions(selection, action)}
              AND jobs.state <> 'running' AND {_NEEDS[action]}
            GROUP BY jobs.processor ORDER BY count(*) DESC, jobs.processor
            """
        ),
        found.parameters | _job_parameters(selection),
    )
    return [(row.processor, row.jobs) for row in rows]


def run(
    engine: Engine,
    selection: EventFilter,
    *,
    requested_by: str,
    reason: str | None,
    rate: float | None,
) -> Iterator[Counts]:
    """Put everything selected back to work, batch by batch; yields the counts so far.

    The jobs go through the replay queue, so that what is live does not wait behind them. With
    `rate` they fall due at that many a second. Who asked, when and why is kept with every
    attempt. Left before its end, it is cancelled."""
    with engine.begin() as connection:
        begun = begin(connection, selection, requested_by=requested_by, reason=reason, rate=rate)
    try:
        while not (progress := advance(engine, begun)).has_ended:
            yield progress.counts
    finally:
        with engine.begin() as connection:
            change_status(connection, begun, "cancelled")  # unless it is finished


_BEGIN = statement(
    """
    INSERT INTO ingest.replays (action, requested_by, reason, selection, rate, total, background,
                         last_job, last_event)
    VALUES (:action, :requested_by, :reason, CAST(:selection AS jsonb), :rate, :total, :background,
            (SELECT id FROM ingest.jobs ORDER BY id DESC LIMIT 1),
            (SELECT id FROM ingest.events ORDER BY id DESC LIMIT 1))
    RETURNING id
    """
)


def begin(
    connection: Connection,
    selection: EventFilter,
    *,
    action: str = REPLAY,
    requested_by: str,
    reason: str | None,
    rate: float | None = None,
    total: int | None = None,
    background: bool = False,
) -> int:
    """Record that somebody wants all that `selection` means replayed or discarded; returns the
    number under which `advance` does it, a batch a call."""
    identity: int = connection.execute(
        _BEGIN,
        {
            "action": action,
            "requested_by": requested_by,
            "reason": reason,
            "selection": json.dumps(asdict(selection), default=str),
            "rate": rate,
            "total": total,
            "background": background,
        },
    ).scalar_one()
    return identity


_HOLD = statement(
    """
    SELECT *, greatest(0, CAST(extract(epoch FROM coalesce(paced_until, now()) - now()) AS float8))
              AS ahead_s
    FROM ingest.replays WHERE id = :id FOR UPDATE
    """
)


_ADVANCE = statement(
    """
    UPDATE ingest.replays
    SET jobs = jobs + :jobs, events = events + :events, running = running + :running,
        after_job = coalesce(:after_job, after_job),
        after_event = coalesce(CAST(:after_event AS uuid), after_event),
        paced_until = now() + make_interval(secs => :ahead_s)
    WHERE id = :id
    """
)


_END = statement(
    "UPDATE ingest.replays SET status = 'finished', finished_at = now() WHERE id = :id"
)


def advance(engine: Engine, operation: int) -> Progress:
    """Do the next batch. Two who advance the same wait for each other, and each batch is done once.

    In the background, one with a rate puts back what falls due in the next half minute and no more,
    so that the rest can still be paused or cancelled.

    Raises:
        SQLAlchemyError: PostgreSQL is away, or the statement took too long; nothing was done.
    """
    with engine.begin() as connection:
        row = connection.execute(_HOLD, {"id": operation}).one_or_none()
        if row is None or row.status != "running":
            return Progress(counts=Counts(), has_ended=True)
        so_far = Counts(jobs=row.jobs, events=row.events, running=row.running)
        if row.background and row.ahead_s > _AHEAD_S:
            return Progress(counts=so_far, waits=True)
        batch = _Batch(connection, row)
        step = batch.jobs() or batch.events()
        if step is None:
            connection.execute(_END, {"id": operation})
            return Progress(counts=so_far, has_ended=True)
        connection.execute(
            _ADVANCE,
            {
                "id": operation,
                "jobs": step.counts.jobs,
                "events": step.counts.events,
                "running": step.counts.running,
                "after_job": step.after_job,
                "after_event": step.after_event,
                "ahead_s": step.ahead_s,
            },
        )
    return Progress(counts=so_far + step.counts)


_CHANGE_STATUS = statement(
    """
    UPDATE ingest.replays
    SET status = CAST(:status AS text), problem = NULL,
        finished_at = CASE WHEN CAST(:status AS text) = 'cancelled' THEN now() END
    WHERE id = :id AND status IN ('running', 'paused', 'failed')
      AND (background OR CAST(:status AS text) = 'cancelled')
    """
)


def change_status(connection: Connection, operation: int, status: str) -> bool:
    """Pause, resume or cancel; whether that was possible. What has ended stays as it is, but for
    what has failed; what a command runs can only be cancelled."""
    parameters = {"id": operation, "status": status}
    return connection.execute(_CHANGE_STATUS, parameters).rowcount > 0


_FAIL = statement(
    """
    UPDATE ingest.replays SET status = 'failed', problem = :problem, finished_at = now()
    WHERE id = :id AND status = 'running'
    """
)


def fail(connection: Connection, operation: int, problem: str) -> None:
    """Record that it cannot go on."""
    connection.execute(_FAIL, {"id": operation, "problem": problem})


_RUNNING = statement(
    "SELECT id FROM ingest.replays WHERE status = 'running' AND background ORDER BY id"
)


def running_in_background(connection: Connection) -> list[int]:
    """What the console is to advance, oldest first."""
    return list(connection.execute(_RUNNING).scalars())


def operation(connection: Connection, identity: int) -> Operation:
    """One replay or discard.

    Raises:
        NotFound: there is none of that number.
    """
    found = _operations(connection, "id = :id", {"id": identity})
    if not found:
        raise NotFound(f"There is no replay {identity}.", reason="not_found")
    return found[0]


def operations(connection: Connection, *, limit: int, before: int | None = None) -> list[Operation]:
    """The newest replays and discards, those before a number."""
    return _operations(
        connection,
        "CAST(:before AS bigint) IS NULL OR id < :before",
        {"before": before, "limit": limit},
    )


_OPERATIONS = """
    SELECT id, action, status, requested_at, requested_by, reason, selection, background, rate,
           total, jobs, events, running, finished_at, problem
    FROM ingest.replays
"""


def _operations(
    connection: Connection, condition: str, parameters: Mapping[str, Any]
) -> list[Operation]:
    query = statement(f"{_OPERATIONS} WHERE {condition} ORDER BY id DESC LIMIT :limit")
    rows = connection.execute(query, {"limit": 1, **parameters})
    return [
        Operation(
            id=row.id,
            action=row.action,
            status=row.status,
            requested_at=row.requested_at,
            requested_by=row.requested_by,
            reason=row.reason,
            selection=EventFilter.from_json(row.selection),
            background=row.background,
            rate=row.rate,
            total=row.total,
            counts=Counts(jobs=row.jobs, events=row.events, running=row.running),
            finished_at=row.finished_at,
            problem=row.problem,
        )
        for row in rows
    ]


def _why(row: Any) -> str:
    return f"Discarded by {row.requested_by}" + (f": {row.reason}" if row.reason else ".")


_REJECTED = statement(
    """
    SELECT id, source, body, headers FROM ingest.deliveries
    WHERE id = ANY(CAST(:ids AS uuid[])) AND rejected IS NOT NULL
    ORDER BY id FOR UPDATE
    """
)


_ACCEPT = statement(
    """
    WITH accepted AS (
        UPDATE ingest.deliveries SET rejected = NULL WHERE id = :id
        RETURNING id, source, received_at
    )
    INSERT INTO ingest.unadmitted (delivery, source, event_id, type, fingerprint, received_at,
                                   queue, hint_at)
    SELECT id, source, :event_id, :type, :fingerprint, received_at, :queue, now() FROM accepted
    """
)


def reopen(
    connection: Connection, sources: Mapping[str, Source], deliveries: Sequence[UUID]
) -> list[UUID]:
    """Open rejected deliveries again, from their raw bytes; returns those that are events now.

    They are admitted as if they had just come; those that still are no events stay as they are.
    """
    opened = []
    for row in connection.execute(_REJECTED, {"ids": list(deliveries)}):
        source = sources.get(row.source)
        if source is None:
            continue
        try:
            name = source.identify(source.parse(row.body), encoded_headers(row.headers))
        except InvalidEnvelope:
            continue
        connection.execute(
            _ACCEPT,
            {
                "id": row.id,
                "event_id": name.event_id,
                "type": name.type,
                "fingerprint": name.fingerprint,
                "queue": queues.REPLAY,
            },
        )
        opened.append(row.id)
    return opened


_NEXT_REJECTED = statement(
    f"""
    SELECT id FROM ingest.deliveries WHERE rejected IS NOT NULL AND id > :after
    ORDER BY id LIMIT {BATCH}
    """
)


def reopen_all(engine: Engine, sources: Mapping[str, Source]) -> Iterator[tuple[int, int]]:
    """Open every rejected delivery again, oldest first, a batch a transaction; yield how many were
    looked at so far, and how many of them are events now."""
    looked_at = opened = 0
    last = UUID(int=0)
    while True:
        with engine.begin() as connection:
            ids = list(connection.execute(_NEXT_REJECTED, {"after": last}).scalars())
            if not ids:
                return
            opened += len(reopen(connection, sources, ids))
        looked_at, last = looked_at + len(ids), ids[-1]
        yield looked_at, opened


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """What a batch did, and from where the next goes on."""

    counts: Counts
    after_job: int | None = None
    after_event: UUID | None = None
    ahead_s: float = 0.0
    """By so much what was put back is ahead of its rate."""


# An event's own delivery, unadmitted again: admit makes the jobs that the event lacks. One that
# waits already for another processor's job gets those of all.
_READMIT = statement(
    """
    INSERT INTO ingest.unadmitted (delivery, source, event_id, type, fingerprint, received_at,
                                   queue, hint_at, processor, replay)
    SELECT e.id, e.source, e.event_id, e.type, e.fingerprint, e.received_at, :queue,
           now() + make_interval(secs => given.delay_s), :processor, :replay
    FROM unnest(CAST(:ids AS uuid[]), CAST(:delays_s AS float8[])) AS given (id, delay_s)
    JOIN ingest.events e USING (id)
    ON CONFLICT (delivery) DO UPDATE SET processor = NULL
    WHERE unadmitted.processor IS DISTINCT FROM EXCLUDED.processor
      AND unadmitted.processor IS NOT NULL
    """
)


class _Batch:
    """The next batch of an operation, in the transaction that records it."""

    def __init__(self, connection: Connection, row: Any) -> None:
        """`row` is the operation's."""
        self._connection = connection
        self._row = row
        self._action: str = row.action
        self._selection = EventFilter.from_json(row.selection)
        # With a slow rate, a batch is what falls due in about as long as it may be ahead.
        self._size = BATCH if row.rate is None else max(1, min(BATCH, int(row.rate * _AHEAD_S)))

    def jobs(self) -> _Step | None:
        """Jobs after those that are done; None: there are none left."""
        found = where(self._selection)
        page = statement(
            f"""
            SELECT jobs.id FROM ingest.jobs JOIN ingest.events ON events.id = jobs.event
            WHERE {found.sql} AND {_job_conditions(self._selection, self._action)}
              AND {_NEEDS[self._action]} AND jobs.id > :after AND jobs.id <= :last
            ORDER BY jobs.id LIMIT {self._size}
            FOR UPDATE OF jobs
            """
        )
        bounds = {"after": self._row.after_job, "last": self._row.last_job}
        parameters = found.parameters | _job_parameters(self._selection, self._row.id) | bounds
        ids = list(self._connection.execute(page, parameters).scalars())
        if not ids:
            return None
        counts = self._discard(ids) if self._action == DISCARD else self._put_back(ids)
        return _Step(counts=counts, after_job=ids[-1], ahead_s=self._ahead_s(len(ids)))

    def _put_back(self, ids: Sequence[int]) -> Counts:
        requeue = jobs.requeue(
            self._connection,
            ids,
            replay=self._row.id,
            queue=queues.REPLAY,
            delays_s=self._delays_s(len(ids)),
        )
        return Counts(jobs=len(requeue.job_ids), running=requeue.running)

    def _discard(self, ids: Sequence[int]) -> Counts:
        discarded = jobs.discard(self._connection, ids, replay=self._row.id, why=_why(self._row))
        return Counts(jobs=discarded)

    def events(self) -> _Step | None:
        """Events without the job in question, after those that are done; None: none are left."""
        if self._action == DISCARD or not _wants_events(self._selection):
            return None
        found = where(self._selection)
        page = statement(
            f"""
            SELECT events.id FROM ingest.events
            WHERE {found.sql} AND {_lacks_job(self._selection)} AND {_HAS_BODY}
              AND events.id > :after AND events.id <= CAST(:last AS uuid)
            ORDER BY events.id LIMIT {self._size}
            """
        )
        bounds = {"after": self._row.after_event, "last": self._row.last_event}
        parameters = found.parameters | _job_parameters(self._selection) | bounds
        ids = list(self._connection.execute(page, parameters).scalars())
        if not ids:
            return None
        readmitted = self._connection.execute(
            _READMIT,
            {
                "ids": ids,
                "delays_s": self._delays_s(len(ids)),
                "replay": self._row.id,
                "queue": queues.REPLAY,
                "processor": self._selection.processor,
            },
        ).rowcount
        return _Step(
            counts=Counts(events=readmitted),
            after_event=ids[-1],
            ahead_s=self._ahead_s(len(ids)),
        )

    def _delays_s(self, count: int) -> list[float]:
        """When each of the batch is due, seconds from now."""
        if self._row.rate is None:
            return [0.0] * count
        return [self._row.ahead_s + number / self._row.rate for number in range(count)]

    def _ahead_s(self, count: int) -> float:
        """When the one after the batch will be."""
        return 0.0 if self._row.rate is None else float(self._row.ahead_s + count / self._row.rate)


_DISCARDABLE = "jobs.state IN ('pending', 'retrying', 'dead') AND jobs.discarded_at IS NULL"


_LAST = "SELECT {what} FROM ingest.attempts a WHERE a.job = jobs.id AND a.number = jobs.attempt"


def _job_conditions(selection: EventFilter, action: str) -> str:
    """The jobs in the state that an event is in, or is in as far as its processor goes. Without a
    state and without ids, dead letters are meant, and with an error, what is failing with it; what
    an operator has discarded is meant only where it is named."""
    conditions = []
    state = _state(selection)
    if selection.processor is not None:
        conditions.append("jobs.processor = :processor")
    if state == UNHANDLED:
        conditions.append("false")
    elif state == DISCARDED:
        conditions.append("jobs.discarded_at IS NOT NULL")
    elif state is not None:
        conditions.append("jobs.state = :state")
        if state == "dead" and not selection.names_events:
            conditions.append("jobs.discarded_at IS NULL")
    elif selection.is_of_failures:
        conditions.append("jobs.state IN ('dead', 'retrying') AND jobs.discarded_at IS NULL")
    if not (state in (None, UNHANDLED) or selection.processor or selection.names_events):
        conditions.append(none_more_urgent(state))
    if selection.error_type is not None:
        conditions.append(f"({_LAST.format(what=ERROR_TYPE)}) = :error_type")
    if selection.raised_at is not None:
        conditions.append(f"coalesce(({_LAST.format(what=RAISED_AT)}), '') = :raised_at")
    if action == DISCARD:
        conditions.append(_DISCARDABLE)
    return " AND ".join(conditions) or "true"


def _state(selection: EventFilter) -> str | None:
    return "dead" if selection.means_what_failed else selection.state


_NO_OPERATION = 0
"""Their numbers begin with 1."""


def _job_parameters(selection: EventFilter, operation: int = _NO_OPERATION) -> dict[str, Any]:
    return {
        "operation": operation,
        "processor": selection.processor,
        "state": _state(selection),
        "error_type": selection.error_type,
        "raised_at": selection.raised_at,
    }


def _wants_events(selection: EventFilter) -> bool:
    """Whether events that lack a job are meant too."""
    if selection.state is not None or selection.is_of_failures:
        return selection.state == UNHANDLED
    return selection.names_events or selection.processor is None


def _lacks_job(selection: EventFilter) -> str:
    if selection.processor is None:
        return "events.id IN (SELECT event FROM ingest.unhandled)"
    return "NOT EXISTS (SELECT FROM ingest.jobs WHERE event = events.id AND processor = :processor)"
