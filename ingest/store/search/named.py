"""Which events a name means: an id, that of a delivery, or one that the sender gave."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection

from ingest.errors import NotFound
from ingest.ids import last_element_id
from ingest.sources.base import join_event_id
from ingest.store.search.distinct import SOURCES, TYPES
from ingest.store.sql import statement


def named_by(connection: Connection, name: str) -> tuple[UUID, ...]:
    """Return the events that `name` names exactly: by their id, by a delivery's (the first
    `_MOST_OF_DELIVERY` of its events), by their id at the sender, or by that of what they are about
    (`790` for `order.created:790`)."""
    try:
        return tuple(_by_id(connection, UUID(name))[:_MOST_OF_DELIVERY])
    except ValueError:
        pass
    known = connection.execute(_NAMES).all()
    candidates = [name, *(join_event_id(row.name, name) for row in known if row.what == "type")]
    sources = [row.name for row in known if row.what == "source"]
    return tuple(
        connection.execute(_NAMED, {"sources": sources, "candidates": candidates}).scalars()
    )


def _by_id(connection: Connection, identity: UUID) -> list[UUID]:
    bounds = {"id": identity, "last": last_element_id(identity)}
    return list(connection.execute(_BY_ID, bounds).scalars())


def resolve(connection: Connection, names: Sequence[str]) -> tuple[UUID, ...]:
    """Return the ids of the events that `names` mean: an event's id, its id at the sender, or that
    of a delivery, whose events they are.

    Raises:
        NotFound: one of them means nothing.
    """
    return tuple(event for name in names for event in _resolve(connection, name))


def _resolve(connection: Connection, name: str) -> list[UUID]:
    try:
        identity = UUID(name)
    except ValueError:
        events = list(connection.execute(_BY_EVENT_ID, {"event_id": name}).scalars())
    else:
        events = _by_id(connection, identity)
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
    """
    WITH named AS (
        SELECT CAST(:id AS uuid) AS id
        UNION ALL
        SELECT id FROM ingest.deliveries WHERE id > :id AND id <= :last AND part_of = :id
    )
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
