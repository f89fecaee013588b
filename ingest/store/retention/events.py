"""Removing finished events with their jobs and attempts, so that none ever comes twice.

An event is finished if each of its jobs succeeded or was discarded, or if it has no job. A dead
letter that nobody discarded stays, and so does what is to be admitted again.

Admission looks an event up in the memory and in `events` by one snapshot, and then inserts it. A
removal that commits between the two would make it insert an event that the memory knows. So an
event is removed in two transactions:

1. It is put into the memory.
2. Once every transaction that was writing `events` at the end of the first has ended, the event is
   removed.

PostgreSQL locks the tables of a statement before it takes the statement's snapshot. So an admission
that does not see the event in the memory held its lock at the end of 1, and 2 waits until it has
found the event in `events`. Every later admission sees it in the memory. Nobody waits for the
removal. `CREATE INDEX CONCURRENTLY` waits for its neighbours in the same way.

A step does 2 for one batch and 1 for the next, so it costs one commit. What was remembered and not
removed is in both, which admission takes for what it is: an event.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import Connection

from ingest.errors import IngestError
from ingest.ids import first_id
from ingest.store import past_events
from ingest.store.pipeline import jobs
from ingest.store.retention import obstacles, progress, turns
from ingest.store.retention.progress import ATTEMPTS, EVENTS, JOBS, Position
from ingest.store.sql import statement


class Unfinished(IngestError):
    """An event to be removed got a job that is not finished: the transaction must roll back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Age:
    """What may go."""

    before: datetime
    """Events received, and jobs ended, before this."""
    remember_since: date
    """Events received before this day are not remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a step did."""

    events: int = 0
    jobs: int = 0
    attempts: int = 0
    has_ended: bool = False
    """Whether nothing older is left, or nothing may go now."""


# With RowExclusiveLock on `events`, a transaction may insert one. Locks that are not granted yet
# are left out: their statements have no snapshot.
_WRITERS = statement(
    """
    SELECT virtualtransaction FROM pg_locks
    WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted
      AND relation = CAST('ingest.events' AS regclass)
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND pid IS DISTINCT FROM pg_backend_pid()
    """
)


def writers(connection: Connection) -> frozenset[str]:
    """Return the open transactions that may be inserting events; none of them comes back later."""
    return frozenset(connection.execute(_WRITERS).scalars())


def step(connection: Connection, age: Age, *, since: Position, limit: int) -> Step:
    """Remove a batch of remembered events and remember the next, in one transaction.

    Args:
        connection: in a transaction of its own.
        age: what may go.
        since: where the pass stood, as read by an earlier transaction, after whose end each
            transaction of `writers` has ended. If the pass has moved on, nothing is done.
        limit: events of a batch, at most.

    Raises:
        Unfinished: the step must roll back, and be repeated.
    """
    if not turns.take(connection):
        return Step(has_ended=True)
    obstacles.refuse_older_code(connection)
    if obstacles.find(connection) is not None:
        return Step(has_ended=True)
    if progress.position(connection, EVENTS) != since:
        return Step()
    removed = _remove(connection, age, since, limit=limit)
    last = _remember(connection, age, after=since.remembered_to, limit=limit)
    done = replace(removed, has_ended=last is None)
    to = Position(removed_to=since.remembered_to, remembered_to=last) if last else Position()
    progress.record(connection, EVENTS, removed=done.events, to=to, has_ended=done.has_ended)
    if done.jobs or done.has_ended:
        progress.record(connection, JOBS, removed=done.jobs, has_ended=done.has_ended)
    if done.attempts or done.has_ended:
        progress.record(connection, ATTEMPTS, removed=done.attempts, has_ended=done.has_ended)
    return done


# No part can become a join, whose plan would depend on statistics (see the admit statement).
FINISHED = f"""
    (SELECT true FROM ingest.jobs
     WHERE event = e.id AND NOT {jobs.FINISHED_BEFORE} LIMIT 1) IS NULL
    AND (SELECT true FROM ingest.unadmitted WHERE delivery = e.id LIMIT 1) IS NULL
"""
"""The condition that an event `e` may go: none of its jobs is unfinished, or ended later."""
_DAY = past_events.day("e.received_at")
_IS_REMEMBERED = f"""
    ({_DAY} < :first_day OR (
        SELECT true FROM ingest.past_events p
        WHERE p.digest = {past_events.digest("e.source", "e.event_id")} AND p.event = e.id LIMIT 1
    ))
"""
_REMOVE = statement(
    f"""
    DELETE FROM ingest.events WHERE id = ANY(ARRAY(
        SELECT id FROM (
            SELECT * FROM ingest.events WHERE id > :after AND id <= :until ORDER BY id LIMIT :limit
        ) AS e
        WHERE {FINISHED} AND {_IS_REMEMBERED}
    ))
    RETURNING id
    """
)
_NO_LONGER_UNHANDLED = statement(
    "DELETE FROM ingest.unhandled WHERE event = ANY(CAST(:events AS uuid[]))"
)

_NO_LONGER_COPIES = statement(
    "DELETE FROM ingest.copies WHERE event = ANY(CAST(:events AS uuid[]))"
)


def _remove(connection: Connection, age: Age, since: Position, *, limit: int) -> Step:
    if since.removed_to == since.remembered_to:
        return Step()
    bounds = {"after": since.removed_to, "until": since.remembered_to, "limit": limit}
    rows = connection.execute(_REMOVE, bounds | _times(age))
    events = list(rows.scalars())
    if not events:
        return Step()
    removed = jobs.remove(connection, events, before=age.before)
    if removed is None:
        raise Unfinished("A job of a removed event is not finished.", reason="unfinished")
    connection.execute(_NO_LONGER_UNHANDLED, {"events": events})
    connection.execute(_NO_LONGER_COPIES, {"events": events})
    return Step(events=len(events), jobs=removed.jobs, attempts=removed.attempts)


_REMEMBER = statement(
    f"""
    WITH page AS MATERIALIZED (
        SELECT * FROM ingest.events WHERE id > :after AND id < :bound ORDER BY id LIMIT :limit
    ), remembered AS (
        INSERT INTO ingest.past_events (digest, fingerprint, event, day)
        SELECT {past_events.digest("e.source", "e.event_id")},
               {past_events.short("e.fingerprint")}, e.id, {_DAY}
        FROM page e WHERE {FINISHED} AND {_DAY} >= :first_day
        ON CONFLICT (digest) DO UPDATE
        SET fingerprint = excluded.fingerprint, event = excluded.event, day = excluded.day
        WHERE past_events.event <> excluded.event
    )
    SELECT id FROM page ORDER BY id DESC LIMIT 1
    """
)


def _remember(connection: Connection, age: Age, *, after: UUID, limit: int) -> UUID | None:
    """Put the finished events of the next page into the memory; return the page's last event, or
    None if there is no further one that is old enough."""
    bounds = {"after": after, "bound": first_id(age.before), "limit": limit}
    last: UUID | None = connection.execute(_REMEMBER, bounds | _times(age)).scalar()
    return last


def _times(age: Age) -> dict[str, object]:
    return {"before": age.before, "first_day": age.remember_since}
