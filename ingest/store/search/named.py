"""Which events a name means: an id, that of a delivery, or one that the sender gave."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection

from ingest.errors import NotFound
from ingest.ids import MAX_ELEMENTS, last_element_id
from ingest.sources.base import join_event_id
from ingest.store.search.distinct import SOURCES, TYPES
from ingest.store.sql import statement


def named_by(connection: Connection, name: str) -> tuple[UUID, ...]:
    """Return the events that `name` names exactly: by their id, by a delivery's (the first
    `_MOST_OF_DELIVERY` of its events), by their id at the sender, or by that of what they are about
    (`790` for `order.created:790`)."""
    if ours := _ours(connection, name):
        return tuple(ours[:_MOST_OF_DELIVERY])
    known = connection.execute(_NAMES).all()
    candidates = [name, *(join_event_id(row.name, name) for row in known if row.what == "type")]
    sources = [row.name for row in known if row.what == "source"]
    return tuple(
        connection.execute(_NAMED, {"sources": sources, "candidates": candidates}).scalars()
    )


def _ours(connection: Connection, name: str) -> list[UUID]:
    """Return the events of an id of ours; none if `name` is no UUID. Senders give UUIDs, too."""
    try:
        identity = UUID(name)
    except ValueError:
        return []
    return by_id(connection, identity)


def by_id(connection: Connection, identity: UUID) -> list[UUID]:
    """Return the event of that id, or the events of the delivery of that id, in their order."""
    return list(connection.execute(_BY_ID, ids_and_elements([identity])).scalars())


def ids_and_elements(ids: Sequence[UUID]) -> dict[str, list[UUID]]:
    """Return the parameters of `IDS_AND_ELEMENTS`."""
    return {"ids": list(ids), "last_ids": [last_element_id(identity) for identity in ids]}


IDS_AND_ELEMENTS = f"""
    SELECT unnest(CAST(:ids AS uuid[])) AS id
    UNION ALL
    SELECT element.id
    FROM unnest(CAST(:ids AS uuid[]), CAST(:last_ids AS uuid[])) AS given (id, last)
    CROSS JOIN LATERAL (
        SELECT id FROM ingest.deliveries
        WHERE id > given.id AND id <= given.last AND part_of = given.id
        ORDER BY id LIMIT {MAX_ELEMENTS}
    ) AS element
    WHERE (SELECT true FROM ingest.events WHERE id = given.id LIMIT 1) IS NULL
"""
"""SQL for ids, and for those of the elements of deliveries among them; an event has none."""


def resolve(connection: Connection, names: Sequence[str]) -> tuple[UUID, ...]:
    """Return the ids of the events that `names` mean: an event's id, its id at the sender, or that
    of a delivery, whose events they are.

    Raises:
        NotFound: one of them means nothing.
    """
    return tuple(event for name in names for event in _resolve(connection, name))


def _resolve(connection: Connection, name: str) -> list[UUID]:
    at_senders = {"event_id": name}
    events = _ours(connection, name) or list(connection.execute(_BY_EVENT_ID, at_senders).scalars())
    if not events:
        raise NotFound(f"No event answers to {name}.", reason="not_found")
    return events


def at_sender(connection: Connection, source: str, event_id: str) -> UUID:
    """Return the event that a source sent under an id of its own.

    Raises:
        NotFound: there is none.
    """
    names = {"source": source, "event_id": event_id}
    event: UUID | None = connection.execute(_AT_SENDER, names).scalar()
    if event is None:
        raise NotFound(f"{source} sent no event {event_id}.", reason="not_found")
    return event


_AT_SENDER = statement(
    "SELECT id FROM ingest.events WHERE source = :source AND event_id = :event_id"
)
_NAMES = statement(
    f"""
    WITH RECURSIVE {TYPES}, {SOURCES}
    SELECT 'type' AS what, type AS name FROM known WHERE type IS NOT NULL
    UNION ALL
    SELECT 'source', slug FROM origin WHERE slug IS NOT NULL
    """
)
_NAMED = statement(
    """
    SELECT id FROM ingest.events
    WHERE source = ANY(CAST(:sources AS text[])) AND event_id = ANY(CAST(:candidates AS text[]))
    ORDER BY id DESC
    """
)
_MOST_OF_DELIVERY = 50
_BY_ID = statement(
    f"""
    WITH named AS ({IDS_AND_ELEMENTS})
    SELECT events.id FROM ingest.events WHERE id = ANY(ARRAY(SELECT id FROM named))
    UNION
    SELECT event FROM ingest.duplicates WHERE delivery = ANY(ARRAY(SELECT id FROM named))
      AND (SELECT true FROM ingest.events WHERE id = duplicates.event LIMIT 1)
    ORDER BY id
    """
)
_BY_EVENT_ID = statement(
    f"""
    WITH RECURSIVE {SOURCES}
    SELECT events.id FROM origin JOIN ingest.events ON events.source = origin.slug
    WHERE events.event_id = :event_id
    """
)
