"""One entity as pages and API show it, with links and without what a viewer may not see."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import Engine

from ingest.console.services.addresses import Addresses, EntityLink
from ingest.console.ui import masking
from ingest.console.ui.masking import HIDDEN
from ingest.entities import listed, naming, offer, timeline
from ingest.entities.entity import BadEntity, Entity, entity
from ingest.entities.timeline import Entry, Erasure, Place, Row, Said, StatusChange, Timeline
from ingest.sources.base import Source
from ingest.store.reports.event_detail import EventHistory, JobRecord
from ingest.store.search.events import ListedEvent
from ingest.store.search.filters import EventFilter

_SHOWN_TO_VIEWERS = frozenset(
    {
        *("status", "status_at", "type", "direction", "total", "currency", "timestamp"),
        *("created_at", "updated_at", "failed_at", "conversation_id", "contact_group_id"),
        *("is_favorite", "mime_type", "error_code", "waba_id", "phone_number_id"),
    }
)
"""Columns that hold nothing of a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryView:
    """An event that concerns the entity."""

    event: ListedEvent
    jobs: tuple[JobRecord, ...]
    said: tuple[Said, ...]
    """What it says of the rows, and whether they have it from there."""
    names: tuple[EntityLink, ...]
    """What else it concerns."""
    is_erased: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityView:
    """All that is stored of an entity, and a page of its events."""

    entity: EntityLink
    order: Literal["newest", "oldest"]
    source: str | None
    total: int
    """Events that concern it."""
    sources: Mapping[str, int]
    """The number of events by sender."""
    entries: tuple[EntryView, ...]
    older: UUID | None
    """The value of `before` for the page of older events; None: there are none."""
    newer: UUID | None
    """The value of `after` for the page of newer events; None: there are none."""
    rows: tuple[Row, ...]
    """What the read model has of it."""
    changes: tuple[StatusChange, ...]
    """Of its status, newest first."""
    linked: tuple[EntityLink, ...]
    """What its rows lead to."""
    erasures: tuple[Erasure, ...]
    """Those that erased something of it."""
    looked_back_to: datetime | None
    """How far back events of senders without a read model were looked for; None: to the first."""
    is_cut: bool
    """Whether it has more messages or orders than were followed to their events: the newest."""
    leaves_unfinished: bool
    """Whether there are more events that were not worked on than were looked through."""
    masked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Entities:
    """Reads entities for pages and API."""

    engine: Engine
    sources: Mapping[str, Source]
    addresses: Addresses

    def read(self, kind: str, name: str, place: Place, *, masked: bool) -> EntityView:
        """Return what is stored of the entity of an address.

        Raises:
            NotFound: there is no such address.
        """
        wanted = self.addresses.entity(kind, name)
        with self.engine.connect() as connection:
            stored = timeline.read(connection, self.sources, wanted, place)
        return self._view(stored, masked=masked)

    def find(self, kind: str, value: str, *, masked: bool) -> EntityLink:
        """Return the address of the entity of a kind that somebody names.

        Raises:
            BadEntity: that can be the name of none.
        """
        return self.link(entity(kind, value), masked=masked)

    def of_event(self, event: EventHistory, *, masked: bool) -> tuple[EntityLink, ...]:
        """Return the entities that an event's first body names."""
        body = event.deliveries[0].body
        if body is None:
            return ()
        return self._links(naming.named_in(self.sources, event, body), masked=masked)

    def of_list(self, events: Sequence[ListedEvent], *, masked: bool) -> Mapping[UUID, EntityLink]:
        """Return what each of some events is about, as far as its body tells."""
        with self.engine.connect() as connection:
            about = listed.about(connection, self.sources, events)
        return {event: self.link(one, masked=masked) for event, one in about.items()}

    def offered(
        self, typed: str, selection: EventFilter, found: Sequence[ListedEvent], *, masked: bool
    ) -> tuple[EntityLink, ...]:
        """Return the entities that a search means: those that it names by their kind, and those
        called by its only text, of which something is stored. Where phone numbers are hidden, only
        a plain number is looked up, and no body is read for it."""
        named = [_named(kind, value) for kind, value in selection.about]
        texts = [typed.strip()] if masked else list(selection.texts)
        if len(texts) == 1 and texts[0]:
            with self.engine.connect() as connection:
                offered = offer.offered(connection, self.sources, texts[0], () if masked else found)
            named += [one for one in offered if not (masked and one.may_name_person)]
        return self._links(filter(None, named), masked=masked)

    def link(self, of: Entity, *, masked: bool) -> EntityLink:
        """Return an entity with its address."""
        return EntityLink(
            kind=of.kind,
            title=_masked_title(of) if masked else of.title,
            name=self.addresses.name(of),
            href=self.addresses.path(of),
        )

    def _links(self, entities: Iterable[Entity], *, masked: bool) -> tuple[EntityLink, ...]:
        return tuple(self.link(one, masked=masked) for one in dict.fromkeys(entities))

    def _view(self, stored: Timeline, *, masked: bool) -> EntityView:
        return EntityView(
            entity=self.link(stored.entity, masked=masked),
            order=stored.place.order.value,
            source=stored.place.source,
            total=stored.total,
            sources=stored.sources,
            entries=tuple(self._entry(entry, masked=masked) for entry in stored.entries),
            older=stored.older,
            newer=stored.newer,
            rows=tuple(_row(row, masked=masked) for row in stored.rows),
            changes=tuple(_change(change, masked=masked) for change in stored.changes),
            linked=self._links(stored.linked, masked=masked),
            erasures=stored.erasures,
            looked_back_to=stored.looked_back_to,
            is_cut=stored.is_cut,
            leaves_unfinished=stored.leaves_unfinished,
            masked=masked,
        )

    def _entry(self, entry: Entry, *, masked: bool) -> EntryView:
        return EntryView(
            event=masking.events([entry.event], masked=masked)[0],
            jobs=tuple(masking.job(job, masked=masked) for job in entry.jobs),
            said=tuple(
                replace(said, value=_value(said.column, said.value, masked=masked))
                for said in entry.said
            ),
            names=self._links(entry.names, masked=masked),
            is_erased=entry.erasure is not None,
        )


def _named(kind: str, value: str) -> Entity | None:
    try:
        return entity(kind, value)
    except BadEntity:
        return None


def _row(row: Row, *, masked: bool) -> Row:
    if not masked:
        return row
    fields = tuple(
        replace(
            field,
            value=_value(field.column, field.value, masked=True),
            event_id=None if field.event_id is None else masking.mask_phones(field.event_id),
        )
        for field in row.fields
    )
    return replace(row, key=masking.mask_phones(row.key), fields=fields)


def _change(change: StatusChange, *, masked: bool) -> StatusChange:
    return replace(change, event_id=masking.mask_phones(change.event_id)) if masked else change


def _value(column: str, value: str, *, masked: bool) -> str:
    return HIDDEN if masked and column not in _SHOWN_TO_VIEWERS else value


def _masked_title(of: Entity) -> str:
    """Return a title without what may be a person's name, address or number."""
    if not of.may_name_person:
        return of.title
    shown = masking.mask_phones(of.value)
    return f"{of.noun} {shown if shown != of.value else HIDDEN}"
