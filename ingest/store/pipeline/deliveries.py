"""Deliveries: what the writer stores, and what became of those that were no event."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from ingest.sources.base import EventIdentity
from ingest.store.engine import WriterConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One authenticated request exactly as received."""

    id: UUID
    source: str
    received_at: datetime
    key_id: str
    headers: str
    """JSON: `[[name, value], …]`."""
    body: bytes
    name: EventIdentity | None
    """None: it is no event."""
    rejected: str | None
    """Why it is no event, a reason slug."""

    @property
    def size(self) -> int:
        """Bytes, near enough to bound a batch."""
        return len(self.body) + len(self.headers) + 300


_INSERT = """
WITH given AS (
    SELECT * FROM unnest(
        %b::uuid[], %b::text[], %b::timestamptz[], %b::text[], %b::text[], %b::bytea[],
        %b::text[], %b::text[], %b::text[], %b::bytea[]
    ) AS given (id, source, received_at, key_id, headers, body,
                rejected, event_id, type, fingerprint)
), stored AS (
    INSERT INTO ingest.deliveries (id, source, received_at, key_id, headers, body, rejected)
    SELECT id, source, received_at, key_id, headers::jsonb, body, nullif(rejected, '') FROM given
    ON CONFLICT (id) DO NOTHING
), noted AS (
    INSERT INTO ingest.unadmitted (delivery, source, event_id, type, fingerprint, received_at,
                                   queue, hint_at)
    SELECT id, source, event_id, type, fingerprint, received_at, %b,
           now() + make_interval(secs => %b)
    FROM given WHERE rejected = ''
    ON CONFLICT (delivery) DO NOTHING
)
"""


async def insert(
    connection: WriterConnection,
    deliveries: Sequence[Delivery],
    *,
    queue: str,
    dispatch_grace_s: float,
) -> None:
    """Store deliveries and mark those that are events as unadmitted, in one statement.

    Sending the same deliveries again changes nothing, so a batch whose commit is in doubt can be
    repeated. Their hint goes to `queue`. After `dispatch_grace_s` seconds the relay takes the hint
    for lost.

    Raises:
        UnfitDatabase: they are stored, but the server has not written them to disk.
    """
    await connection.commit_durably(_INSERT, _values(deliveries, queue, dispatch_grace_s))


async def try_to_insert(connection: WriterConnection, delivery: Delivery) -> None:
    """Store a delivery as `insert` does, and take it back: nothing is stored, nobody sees it.

    Without rows the statement would find a missing privilege and a read-only server too, but not a
    partition that is locked, a disk that is full or a trigger that fails.

    Raises:
        psycopg.Error: no delivery can be stored; the connection is to be closed.
        UnfitDatabase: the server does not write to disk.
    """
    await connection.try_out(_INSERT, _values([delivery], "", 0.0))


_NO_NAME = EventIdentity(event_id="", type="", fingerprint=b"")


def _values(deliveries: Sequence[Delivery], queue: str, dispatch_grace_s: float) -> tuple[Any, ...]:
    names = [delivery.name or _NO_NAME for delivery in deliveries]
    return (
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
        queue,
        dispatch_grace_s,
    )
