"""Which entities a text may mean that somebody has typed to search for."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from ingest.entities import naming
from ingest.entities.entity import BadEntity, Entity, entity
from ingest.erasure.person import is_phone
from ingest.sources.base import Source
from ingest.store.entities import events, rows
from ingest.store.search.events import ListedEvent
from ingest.store.search.related import KINDS


def offered(
    connection: Connection,
    sources: Mapping[str, Source],
    text: str,
    found: Sequence[ListedEvent],
) -> tuple[Entity, ...]:
    """Return the entities called `text` of which something is stored: a row of the read model, an
    event that is named after it, or one of the events `found` whose body names it."""
    candidates = [one for kind in KINDS if (one := _candidate(kind, text)) is not None]
    if not candidates:
        return ()
    named = _named_in(connection, sources, found)
    has_read_model = rows.has_read_model(connection)
    return tuple(
        one
        for one in candidates
        if one in named
        or (has_read_model and rows.is_known(connection, one.kind, one.value))
        or _names_an_event(connection, sources, one)
    )


def _candidate(kind: str, text: str) -> Entity | None:
    try:
        candidate = entity(kind, text)
    except BadEntity:
        return None
    return None if kind == "phone" and not is_phone(candidate.value) else candidate


def _named_in(
    connection: Connection, sources: Mapping[str, Source], found: Sequence[ListedEvent]
) -> frozenset[Entity]:
    by_id = {event.id: event for event in found}
    bodies = events.bodies(connection, list(by_id), largest=naming.LARGEST_READ) if by_id else {}
    return frozenset(
        one
        for event, body in bodies.items()
        for one in naming.named_in(sources, by_id[event], body)
    )


def _names_an_event(connection: Connection, sources: Mapping[str, Source], one: Entity) -> bool:
    names = {name for source in sources.values() for name in source.event_ids(one.kind, one.value)}
    return bool(names and rows.is_any_called(connection, list(sources), sorted(names)))
