"""Lists of events, newest first."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text

from ingest.errors import NotFound
from ingest.store.selection import STATE_OF_EVENT, UNHANDLED, Selection, where


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedEvent:
    """An event as a line of a list."""

    id: UUID
    source: str
    event_id: str
    type: str
    state: str
    received_at: datetime
    deliveries: int
    """How often it was delivered."""


def events(connection: Connection, selection: Selection, *, limit: int) -> Iterator[ListedEvent]:
    """The newest `limit` events of a selection."""
    found = where(selection)
    conditions = [found.sql]
    parameters = found.parameters | {"limit": limit}
    if selection.state is not None:
        conditions.append("summary.state = :state")
        parameters["state"] = selection.state
        if selection.state not in ("succeeded", UNHANDLED):
            # Few jobs are in these states, and an index finds them.
            conditions.append("events.id IN (SELECT event FROM jobs WHERE state = :state)")
    if selection.processor is not None:
        conditions.append(
            "EXISTS (SELECT FROM jobs WHERE event = events.id AND processor = :processor)"
        )
        parameters["processor"] = selection.processor
    rows = connection.execute(
        text(
            f"""
            SELECT events.id, events.source, events.event_id, events.type, summary.state,
                   events.received_at,
                   1 + (SELECT count(*) FROM duplicates WHERE event = events.id) AS deliveries
            FROM events CROSS JOIN LATERAL ({STATE_OF_EVENT}) AS summary
            WHERE {" AND ".join(conditions)}
            ORDER BY events.id DESC LIMIT :limit
            """
        ),
        parameters,
    )
    return (ListedEvent(**row) for row in rows.mappings())


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedDelivery:
    """A signed request that was no event."""

    id: UUID
    source: str
    received_at: datetime
    rejected: str
    size: int


def rejected(connection: Connection, *, limit: int) -> Iterator[RejectedDelivery]:
    """The newest `limit` rejected deliveries."""
    rows = connection.execute(_REJECTED, {"limit": limit})
    return (RejectedDelivery(**row) for row in rows.mappings())


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeDelivery:
    """A stored delivery with what was sent."""

    id: UUID
    source: str
    received_at: datetime
    rejected: str | None
    key_id: str
    headers: list[tuple[str, str]]
    body: bytes


def delivery(connection: Connection, identity: UUID) -> WholeDelivery:
    """One delivery.

    Raises:
        NotFound: there is none of that id, or its day was dropped.
    """
    row = connection.execute(_DELIVERY, {"id": identity}).mappings().one_or_none()
    if row is None:
        raise NotFound(f"There is no delivery {identity}.", reason="not_found")
    return WholeDelivery(**row)


_DELIVERY = text(
    "SELECT id, source, received_at, rejected, key_id, headers, body FROM deliveries WHERE id = :id"
)

_REJECTED = text(
    """
    SELECT id, source, received_at, rejected, octet_length(body) AS size
    FROM deliveries WHERE rejected IS NOT NULL
    ORDER BY id DESC LIMIT :limit
    """
)
