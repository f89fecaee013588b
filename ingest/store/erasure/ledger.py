"""Reading deliveries and events in the order of their ids, and erasing what they hold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, RowMapping, TextClause

from ingest import queues
from ingest.encryption.keys import BodyKeys
from ingest.errors import BodyTampered
from ingest.store import arrays, past_events
from ingest.store.encryption.opening import keys_of
from ingest.store.pipeline import admission, jobs
from ingest.store.pipeline.deliveries import erase_content
from ingest.store.pipeline.erased_names import PREFIX, erased_name
from ingest.store.sql import statement

WHY = "The event's body was erased."
_ROWS = 1_000
_BYTES = 16 * 1024 * 1024
"""How much a batch of deliveries reads, at most (and one delivery in any case)."""
_EVENTS = 5_000


class Unsettled(Exception):
    """Somebody else was admitting the same events: the batch is to be repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDelivery:
    """A delivery with what is known of its event."""

    id: UUID
    source: str
    event: UUID | None
    """None: it is rejected, not admitted yet, or holds several events."""
    event_id: str | None
    type: str | None
    headers: str
    body: bytes


def read_of(*, rows: int) -> TextClause:
    """Return the statement that reads a batch of at most so many deliveries."""
    return statement(f"""
    WITH page AS MATERIALIZED (
        SELECT id, coalesce(octet_length(body), 0) AS size FROM ingest.deliveries
        WHERE id > CAST(:after AS uuid) ORDER BY id LIMIT {rows}
    ), bounded AS MATERIALIZED (
        SELECT id FROM (
            SELECT id, sum(size) OVER (ORDER BY id) - size AS before FROM page
        ) AS summed WHERE before < {_BYTES}
    )
    SELECT d.id, d.source, e.id AS event, coalesce(e.event_id, u.event_id) AS event_id,
           coalesce(e.type, u.type) AS type, CAST(d.headers AS text) AS headers, d.body,
           d.body_key
    FROM bounded
    JOIN ingest.deliveries d USING (id)
    LEFT JOIN ingest.duplicates r ON r.delivery = d.id
    LEFT JOIN ingest.events e ON e.id = coalesce(r.event, d.id)
    LEFT JOIN ingest.unadmitted u ON u.delivery = d.id
    ORDER BY d.id
    """)


_READ = read_of(rows=_ROWS)


def deliveries_after(
    connection: Connection, after: UUID
) -> tuple[list[StoredDelivery], UUID | None]:
    """Return the deliveries of the next batch that have a body, and where the batch ended; None:
    there are no further ones.

    Raises:
        BodyKeyMissing: one is encrypted with a key that this process lacks: nobody could say
            whether it names the person.
    """
    rows = connection.execute(_READ, {"after": after}).mappings().all()
    keys = keys_of(connection)
    stored = [_opened(keys, row) for row in rows if row["body"] is not None]
    return stored, rows[-1]["id"] if rows else None


def _opened(keys: BodyKeys, row: RowMapping) -> StoredDelivery:
    """Return a delivery with its body; one that was tampered with says nothing."""
    columns = dict(row)
    key = columns.pop("body_key")
    try:
        columns["body"] = keys.open(bytes(row["body"]), row["id"], key)
    except BodyTampered:
        columns["body"] = b""
    return StoredDelivery(**columns)


_READ_EVENTS = statement(
    f"""
    SELECT id, source, event_id, type FROM ingest.events
    WHERE id > CAST(:after AS uuid)
      AND NOT EXISTS (SELECT FROM ingest.deliveries
                      WHERE deliveries.id = events.id AND body IS NOT NULL)
    ORDER BY id LIMIT {_EVENTS}
    """
)


def events_after(connection: Connection, after: UUID) -> Sequence[Any]:
    """Return id, source, event id and type of the next batch of events without a body."""
    return connection.execute(_READ_EVENTS, {"after": after}).all()


# Admission inserts into this table. So while the lock is held nothing is admitted, and what is
# admitted afterwards sees the new names: no duplicate can become an event of its own.
_STOP_ADMISSION = statement("LOCK TABLE ingest.events IN SHARE ROW EXCLUSIVE MODE")
_UNADMITTED = statement(
    "SELECT delivery FROM ingest.unadmitted WHERE delivery = ANY(CAST(:ids AS uuid[]))"
)


def stop_admission(connection: Connection, deliveries: Sequence[UUID]) -> None:
    """Admit deliveries that wait for it, without making jobs, and keep everybody else from
    admitting until the transaction ends.

    Raises:
        Unsettled: some could not be admitted.
        OperationalError: the lock was not available.
    """
    connection.execute(_STOP_ADMISSION)
    waiting = list(connection.execute(_UNADMITTED, {"ids": arrays.literal(deliveries)}).scalars())
    if waiting:
        admitted = admission.admit(
            connection, waiting, [], replay_queue=queues.REPLAY, redispatch_after_s=0.0
        )
        if admitted.unsettled:
            raise Unsettled


_EVENTS_OF = statement(
    """
    SELECT id FROM ingest.events WHERE id = ANY(CAST(:ids AS uuid[]))
    UNION
    SELECT event FROM ingest.duplicates WHERE delivery = ANY(CAST(:ids AS uuid[]))
    ORDER BY id
    """
)


def events_of(connection: Connection, deliveries: Sequence[UUID]) -> list[UUID]:
    """Return the events whose deliveries these are."""
    return list(connection.execute(_EVENTS_OF, {"ids": arrays.literal(deliveries)}).scalars())


_DELIVERIES_OF = statement(
    """
    SELECT unnest(CAST(:events AS uuid[]))
    UNION SELECT delivery FROM ingest.duplicates WHERE event = ANY(CAST(:events AS uuid[]))
    """
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What was erased."""

    deliveries: int
    attempts: int
    jobs: int
    """That had not succeeded, and are given up."""


def erase(
    connection: Connection,
    deliveries: Sequence[UUID],
    events: Sequence[UUID],
    *,
    is_personal: Callable[[str], bool],
) -> Erased:
    """Erase the content of deliveries, and everything of events but their place in the ledger.

    All deliveries of the events are erased, and those that they are elements of. `is_personal`
    tells whether a name identifies the person. The caller has stopped admission.
    """
    of_events = connection.execute(_DELIVERIES_OF, {"events": arrays.literal(events)}).scalars()
    erased = erase_content(connection, sorted({*deliveries, *of_events}))
    attempts = jobs.forget_errors_of_events(connection, events)
    revoked = jobs.revoke(connection, events, why=WHY)
    _make_tombstones(connection, events, is_personal)
    return Erased(deliveries=erased, attempts=attempts, jobs=revoked)


_NAMES = statement(
    "SELECT id, event_id, type FROM ingest.events WHERE id = ANY(CAST(:events AS uuid[]))"
)
_NEW_NAME = erased_name("e.source", "e.event_id")
_EMPTY = statement(
    f"""
    UPDATE ingest.events e
    SET fingerprint = '',
        event_id = CASE WHEN id = ANY(CAST(:renamed AS uuid[])) THEN {_NEW_NAME}
                        ELSE event_id END,
        type = CASE WHEN id = ANY(CAST(:retyped AS uuid[])) THEN 'erased' ELSE type END
    WHERE id = ANY(CAST(:events AS uuid[]))
    """
)
# Retention may have put an event into its memory already, and not removed it yet.
_EMPTY_MEMORY = statement(
    f"""
    UPDATE ingest.past_events
    SET fingerprint = '',
        digest = CASE WHEN event = ANY(CAST(:renamed AS uuid[])) THEN (
                     SELECT {past_events.digest("e.source", _NEW_NAME)}
                     FROM ingest.events e WHERE e.id = past_events.event
                 ) ELSE digest END
    WHERE digest = ANY(ARRAY(
        SELECT {past_events.digest("e.source", "e.event_id")}
        FROM ingest.events e WHERE e.id = ANY(CAST(:events AS uuid[]))
    ))
    """
)
_HANDLED = statement("DELETE FROM ingest.unhandled WHERE event = ANY(CAST(:events AS uuid[]))")


def _make_tombstones(
    connection: Connection, events: Sequence[UUID], is_personal: Callable[[str], bool]
) -> None:
    named = connection.execute(_NAMES, {"events": arrays.literal(events)}).all()
    renamed = [
        row.id for row in named if not row.event_id.startswith(PREFIX) and is_personal(row.event_id)
    ]
    parameters = {
        "events": arrays.literal(events),
        "renamed": arrays.literal(renamed),
        "retyped": arrays.literal(row.id for row in named if is_personal(row.type)),
    }
    connection.execute(_EMPTY_MEMORY, parameters)
    connection.execute(_EMPTY, parameters)
    connection.execute(_HANDLED, {"events": arrays.literal(events)})
