"""Deliveries: the requests that the writer stores, rejected ones too, and their elements."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from ingest.encryption.keys import BodyKeys
from ingest.sources.base import EventIdentity
from ingest.store import arrays
from ingest.store.engine import WriterConnection
from ingest.store.sql import statement


class Delivery(NamedTuple):
    """One authenticated request exactly as received. (A frozen dataclass takes 2 µs to make.)"""

    id: UUID
    source: str
    received_at: datetime
    key_id: str
    headers: str
    """JSON: `[[name, value], …]`."""
    body: bytes
    name: EventIdentity | None
    """None: it is not an event."""
    rejected: str | None
    """Why it is not an event: a reason slug; None for an event, and for one of several events."""
    elements: "tuple[Delivery, ...]" = ()
    """Its events, if it holds several, and the elements that are none; then it has no name itself.
    They are stored with it."""

    @property
    def size(self) -> int:
        """Return its bytes, close enough to bound a batch."""
        size = len(self.body) + len(self.headers) + 300
        return size + sum(element.size for element in self.elements) if self.elements else size

    @property
    def rows(self) -> int:
        """Return how many rows it takes."""
        return 1 + len(self.elements)

    def events(self) -> "Sequence[Delivery]":
        """Return what is to be admitted: itself, or those of its elements that are events."""
        if self.elements:
            return [element for element in self.elements if element.rejected is None]
        return () if self.rejected else (self,)


_STORE = """
), stored AS (
    INSERT INTO ingest.deliveries (id, source, received_at, key_id, headers, body,
                                   rejected{columns}{encrypted})
    SELECT id, source, received_at, key_id, headers::jsonb, body, nullif(rejected, ''){columns}{key}
    FROM batch
    {unless_stored}
), noted AS (
    INSERT INTO ingest.unadmitted (delivery, source, event_id, type, fingerprint, received_at,
                                   queue, hint_at)
    SELECT id, source, event_id, type, fingerprint, received_at, %b,
           now() + make_interval(secs => %b)
    FROM batch WHERE {is_event}
    {unless_noted}
)
"""
_BATCH = """
WITH batch AS (
    SELECT * FROM unnest(
        %b::uuid[], %b::text[], %b::timestamptz[], %b::text[], %b::text[], %b::bytea[],
        %b::text[], %b::text[], %b::text[], %b::bytea[]
    ) AS batch (id, source, received_at, key_id, headers, body,
                rejected, event_id, type, fingerprint)
"""
_OF_EVENTS = {"columns": "", "is_event": "rejected = ''"}
# The two further columns are sent only when a delivery of the batch has elements: otherwise they
# would cost every delivery something.
_BATCH_WITH_ELEMENTS = """
WITH batch AS (
    SELECT * FROM unnest(
        %b::uuid[], %b::text[], %b::timestamptz[], %b::text[], %b::text[], %b::bytea[],
        %b::text[], %b::text[], %b::text[], %b::bytea[], %b::uuid[], %b::bool[]
    ) AS batch (id, source, received_at, key_id, headers, body,
                rejected, event_id, type, fingerprint, part_of, is_event)
"""
_OF_ELEMENTS = {"columns": ", part_of", "is_event": "is_event"}
# One more parameter a flush, and only where bodies are encrypted: the id of the key.
_IN_CLEAR = {"encrypted": "", "key": ""}
_ENCRYPTED = {"encrypted": ", body_key", "key": ", %b::text"}
# Only a repeat can meet its own rows. To look for them, PostgreSQL reads the index before it writes
# each row, and confirms it afterwards: 48 bytes of write-ahead log a row.
_FIRST = {"unless_stored": "", "unless_noted": ""}
_REPEAT = {
    "unless_stored": "ON CONFLICT (id) DO NOTHING",
    "unless_noted": "ON CONFLICT (delivery) DO NOTHING",
}
_INSERT = {
    (has_elements, is_encrypted, is_repeat): batch + _STORE.format(**rows, **bodies, **repeats)
    for has_elements, batch, rows in (
        (False, _BATCH, _OF_EVENTS),
        (True, _BATCH_WITH_ELEMENTS, _OF_ELEMENTS),
    )
    for is_encrypted, bodies in ((False, _IN_CLEAR), (True, _ENCRYPTED))
    for is_repeat, repeats in ((False, _FIRST), (True, _REPEAT))
}
"""The statement, by whether there are elements, whether bodies are encrypted, and whether the rows
may be there already."""


class Also(NamedTuple):
    """Further rows of the same statement."""

    sql: str
    """CTEs that insert them, with parameters as `%b`."""
    values: tuple[Any, ...]


async def insert(
    connection: WriterConnection,
    deliveries: Sequence[Delivery],
    *,
    queue: str,
    dispatch_grace_s: float,
    is_repeat: bool = False,
    also: Also | None = None,
) -> None:
    """Store deliveries with their elements, and mark those that are events as unadmitted, in one
    statement.

    A batch whose commit is in doubt can be repeated, with `is_repeat`: what is stored already stays
    as it is. They are dispatched to `queue`. After `dispatch_grace_s` seconds the relay presumes
    the message lost. `also` is stored with them, or nothing is.

    Raises:
        UnfitDatabase: they are stored, but the server has not written them to disk, or not to that
            of its synchronous standby.
    """
    sql, values = _prepared(
        connection.body_keys, deliveries, queue, dispatch_grace_s, is_repeat=is_repeat
    )
    if also is not None:
        sql, values = f"{sql}, {also.sql}", (*values, *also.values)
    await connection.commit_durably(sql, values, is_repeat=is_repeat)


async def try_to_insert(connection: WriterConnection, delivery: Delivery) -> None:
    """Store a delivery as `insert` does, and roll it back, so that nobody sees it.

    An insert without rows would also find a missing privilege and a read-only server, but not a
    locked partition, a full disk or a failing trigger. It is stored as a repeat would be, which
    needs every privilege.

    Raises:
        psycopg.Error: no delivery can be stored; the caller closes the connection.
        UnfitDatabase: the server does not write to disk.
    """
    await connection.try_out(*_prepared(connection.body_keys, [delivery], "", 0.0, is_repeat=True))


_NO_NAME = EventIdentity(event_id="", type="", fingerprint=b"")


def _prepared(
    keys: BodyKeys,
    deliveries: Sequence[Delivery],
    queue: str,
    dispatch_grace_s: float,
    *,
    is_repeat: bool,
) -> tuple[str, tuple[Any, ...]]:
    """Return the statement that stores deliveries, and its values."""
    has_elements = any(delivery.elements for delivery in deliveries)
    columns = _columns_with_elements(deliveries) if has_elements else _columns(deliveries)
    key = keys.newest
    if key is None:
        return _INSERT[has_elements, False, is_repeat], (*columns, queue, dispatch_grace_s)
    ids, bodies = columns[0], columns[_BODY]
    columns[_BODY] = [keys.seal(body, row, key) for row, body in zip(ids, bodies, strict=True)]
    return _INSERT[has_elements, True, is_repeat], (*columns, key, queue, dispatch_grace_s)


def _columns_with_elements(deliveries: Sequence[Delivery]) -> list[list[Any]]:
    rows: list[Delivery] = []
    part_of: list[UUID | None] = []
    for delivery in deliveries:
        rows += (delivery, *delivery.elements)
        part_of += (None, *[delivery.id] * len(delivery.elements))
    is_event = [row.name is not None for row in rows]
    return [*_columns(rows), part_of, is_event]


_BODY = 5
"""The place of the bodies among the columns."""


def _columns(deliveries: Sequence[Delivery]) -> list[list[Any]]:
    names = [delivery.name or _NO_NAME for delivery in deliveries]
    return [
        [delivery.id for delivery in deliveries],
        [delivery.source for delivery in deliveries],
        [delivery.received_at for delivery in deliveries],
        [delivery.key_id for delivery in deliveries],
        [delivery.headers for delivery in deliveries],
        [delivery.body for delivery in deliveries],
        [delivery.rejected or "" for delivery in deliveries],
        [name.event_id for name in names],
        [name.type for name in names],
        [name.fingerprint for name in names],
    ]


_INSERT_OWN = statement(
    """
    WITH stored AS (
        INSERT INTO ingest.deliveries (id, source, received_at, key_id, headers, body)
        VALUES (:id, :source, :received_at, :key_id, CAST(:headers AS jsonb), :body)
    )
    INSERT INTO ingest.unadmitted (delivery, source, event_id, type, fingerprint, received_at,
                                   queue, hint_at, processor)
    VALUES (:id, :source, :event_id, :type, :fingerprint, :received_at, :queue, now(), :processor)
    """
)


def insert_own(
    connection: Connection,
    delivery: Delivery,
    name: EventIdentity,
    *,
    queue: str,
    processor: str,
) -> None:
    """Store a delivery that the pipeline made itself, to be admitted for one processor. Its body
    stays in clear."""
    connection.execute(
        _INSERT_OWN,
        {
            "id": delivery.id,
            "source": delivery.source,
            "received_at": delivery.received_at,
            "key_id": delivery.key_id,
            "headers": delivery.headers,
            "body": delivery.body,
            **name._asdict(),
            "queue": queue,
            "processor": processor,
        },
    )


_ERASE = statement(
    """
    WITH named AS MATERIALIZED (
        SELECT id, part_of FROM ingest.deliveries WHERE id = ANY(CAST(:ids AS uuid[]))
    )
    UPDATE ingest.deliveries SET body = NULL, body_key = NULL, headers = '[]'
    WHERE id = ANY(ARRAY(
              SELECT id FROM named UNION SELECT part_of FROM named WHERE part_of IS NOT NULL
          ))
      AND body IS NOT NULL
    """
)


def erase_content(connection: Connection, deliveries: Sequence[UUID]) -> int:
    """Erase body and headers of deliveries, and of those that they are elements of.

    Return how many had a body until now.
    """
    return connection.execute(_ERASE, {"ids": arrays.literal(deliveries)}).rowcount
