"""What each event of a list is about: the one entity that a row leads to."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import Connection

from ingest.entities import naming
from ingest.entities.entity import Entity
from ingest.sources.base import Source
from ingest.store.entities import events as store
from ingest.store.search.events import ListedEvent
from ingest.store.search.titles import WHOLE_BYTES

_KINDS = ("order", "conversation", "contact", "phone", "message")
"""The most telling first, as in titles."""


def about(
    connection: Connection, sources: Mapping[str, Source], listed: Sequence[ListedEvent]
) -> dict[UUID, Entity]:
    """Return what events are about, as far as their bodies tell: those of up to 16 KiB."""
    if not listed:
        return {}
    by_id = {event.id: event for event in listed}
    bodies = store.bodies(connection, list(by_id), largest=WHOLE_BYTES)
    named = {event: naming.named_in(sources, by_id[event], body) for event, body in bodies.items()}
    return {
        event: min(entities, key=lambda one: _KINDS.index(one.kind))
        for event, entities in named.items()
        if entities
    }
