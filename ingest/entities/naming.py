"""Which entities a body names, in the fields that its source declares."""

from collections.abc import Mapping
from typing import Protocol

from ingest.entities.entity import BadEntity, Entity, entity
from ingest.erasure import bodies
from ingest.phones import normal_phone
from ingest.sources.base import Source
from ingest.sources.operator import reader

LARGEST_READ = 64 * 1024
"""Bytes of a body that is parsed for this; larger ones are batches or files."""
_MOST = 20


class NamedEvent(Protocol):
    """An event, as far as it says who sent it and what it is."""

    @property
    def source(self) -> str:
        """Return the slug of its source."""

    @property
    def event_id(self) -> str:
        """Return its id at the sender."""

    @property
    def type(self) -> str:
        """Return its type."""


def named_in(sources: Mapping[str, Source], event: NamedEvent, body: bytes) -> tuple[Entity, ...]:
    """Return the entities that an event's body names; none, if it cannot be read or is too large.

    What identifies a person in an event of a sender without a read model counts as a contact.
    """
    source = sources.get(reader(event.source, event.event_id))
    if source is None or len(body) > LARGEST_READ:
        return ()
    named = bodies.named_in(source, event.type, body)
    if not named:
        return ()  # its source has changed and cannot read it any more
    phones = named["phone"]
    values = [(kind, value) for kind in bodies.KINDS for value in sorted(named[kind])]
    if source.read_model is None:
        values += [
            ("contact", value)
            for value in sorted(named["person"])
            if normal_phone(value) not in phones
        ]
    entities = (_entity(kind, value) for kind, value in values)
    return tuple(dict.fromkeys(filter(None, entities)))[:_MOST]


def _entity(kind: str, value: str) -> Entity | None:
    try:
        return entity(kind, value)
    except BadEntity:
        return None
