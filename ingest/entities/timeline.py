"""All that is stored of one entity: its events in time order with their jobs, and the rows that the
read model made of them."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection

from ingest.entities import naming
from ingest.entities.entity import Entity, entity
from ingest.errors import InvalidEnvelope
from ingest.ids import received_at
from ingest.sources import operator
from ingest.sources.base import Source
from ingest.sources.operator import reader
from ingest.store.entities import events as store
from ingest.store.entities import rows as read_model
from ingest.store.entities.origins import PROVENANCE
from ingest.store.entities.rows import Change, Known, ModelRow
from ingest.store.erasure import records
from ingest.store.reports import event_detail
from ingest.store.reports.event_detail import JobRecord
from ingest.store.search import events as listing
from ingest.store.search.events import ListedEvent
from ingest.store.search.filters import EventFilter
from ingest.store.search.id_range import Span, next_id
from ingest.store.search.related import Times, first_beyond, is_cut, leaves_unfinished

_LONGEST_VALUE = 300
"""Characters of a value that are shown."""


class Order(enum.StrEnum):
    """Which event comes first."""

    NEWEST = "newest"
    OLDEST = "oldest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which page of an entity's events."""

    order: Order = Order.NEWEST
    before: UUID | None = None
    """Only events older than this one."""
    after: UUID | None = None
    """Only events newer than this one; of these the oldest."""
    source: str | None = None
    """Only those of one sender."""
    limit: int = 50

    @property
    def span(self) -> Span:
        """Return where to read, and in which direction."""
        if self.before is not None:
            return Span(high=self.before)
        if self.after is not None:
            return Span(low=next_id(self.after), newer=True)
        return Span(newer=self.order is Order.OLDEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What an event says of a column of a row."""

    table: str
    column: str
    value: str
    fate: Literal["set", "replaced", "not applied"]
    """Whether the row has it from this event; another event set the column since, or does not let
    it be set; or the job that would has not succeeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An event that concerns the entity."""

    event: ListedEvent
    jobs: tuple[JobRecord, ...]
    said: tuple[Said, ...]
    """As far as its body and the rows tell."""
    names: tuple[Entity, ...]
    """What else it concerns, by its body."""
    erasure: int | None
    """The erasure that erased it; None: it was not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldValue:
    """A column of a row of the read model."""

    column: str
    value: str
    event: UUID | None
    """The event that set it; None: it is not stored any more, or the row does not tell."""
    event_id: str | None
    """Its id at the sender."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the read model as it is."""

    table: str
    key: str
    fields: tuple[FieldValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusChange:
    """A change of a status that the read model keeps."""

    status_before: str | None
    status: str
    at: datetime | None
    event: UUID | None
    event_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """An erasure that took something of the entity."""

    id: int
    requested_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """All that is stored of an entity, and a page of its events."""

    entity: Entity
    place: Place
    total: int
    """Events that concern it, those of other senders with the same id among them."""
    sources: Mapping[str, int]
    """The number of events by sender."""
    entries: tuple[Entry, ...]
    older: UUID | None
    """The value of `before` for the page of older events; None: there are none."""
    newer: UUID | None
    """The value of `after` for the page of newer events; None: there are none."""
    rows: tuple[Row, ...]
    changes: tuple[StatusChange, ...]
    """Newest first; the last `MOST` of them."""
    linked: tuple[Entity, ...]
    """What its rows lead to."""
    erasures: tuple[Erasure, ...]
    looked_back_to: datetime | None
    """How far back events of senders without a read model were looked for; None: to the first."""
    is_cut: bool
    """Whether it has more messages or orders than were followed to their events: the newest."""
    leaves_unfinished: bool
    """Whether there are more events that were not worked on than were looked through."""


def read(
    connection: Connection, sources: Mapping[str, Source], wanted: Entity, place: Place
) -> Timeline:
    """Return what is stored of an entity, and a page of its events. Nothing may be known of it."""
    has_read_model = read_model.has_read_model(connection)
    times = Times(has_read_model=has_read_model)
    page = store.find(
        connection,
        wanted.kind,
        wanted.value,
        times=times,
        span=place.span,
        source=place.source,
        limit=place.limit,
    )
    known = Known()
    if has_read_model:
        known = read_model.known(connection, wanted.kind, wanted.value)
    erased = store.erased(connection, page.ids)
    beyond = first_beyond(connection, [wanted.kind], times)
    events = _events_of_rows(connection, sources, known)
    erasures_of_events = {one.erasure: one.at for one in erased}
    return Timeline(
        entity=wanted,
        place=place,
        total=sum(page.sources.values()),
        sources=page.sources,
        entries=_entries(connection, sources, wanted, place, page.ids, known.rows, erased),
        older=_older(place, page),
        newer=_newer(place, page),
        rows=tuple(_row(row, events) for row in known.rows),
        changes=tuple(_change(change, events) for change in known.changes),
        linked=tuple(
            dict.fromkeys(linked for pair in known.linked if (linked := entity(*pair)) != wanted)
        ),
        erasures=_erasures(connection, wanted, erasures_of_events),
        looked_back_to=None if beyond is None else received_at(beyond),
        is_cut=has_read_model and is_cut(connection, wanted.kind, wanted.value),
        leaves_unfinished=leaves_unfinished(connection),
    )


def _older(place: Place, page: store.Found) -> UUID | None:
    span = place.span
    if span.newer:
        return None if place.after is None else min(page.ids, default=span.low)
    return min(page.ids) if page.has_more else None


def _newer(place: Place, page: store.Found) -> UUID | None:
    span = place.span
    if not span.newer:
        edge = UUID(int=max(span.high.int - 1, 0))
        return None if place.before is None else max(page.ids, default=edge)
    return max(page.ids) if page.has_more else None


def _entries(
    connection: Connection,
    sources: Mapping[str, Source],
    wanted: Entity,
    place: Place,
    ids: Sequence[UUID],
    rows: Sequence[ModelRow],
    erased: Sequence[store.Erased],
) -> tuple[Entry, ...]:
    if not ids:
        return ()
    listed = listing.events(connection, EventFilter(ids=tuple(ids)), limit=len(ids))
    jobs = event_detail.jobs_of(connection, ids)
    bodies = store.bodies(connection, ids, largest=naming.LARGEST_READ)
    erasures = {one.event: one.erasure for one in erased}
    entries = []
    for event in sorted(listed, key=lambda one: one.id, reverse=place.order is Order.NEWEST):
        body = bodies.get(event.id)
        source = sources.get(reader(event.source, event.event_id))
        names: tuple[Entity, ...] = ()
        said: tuple[Said, ...] = ()
        if body is not None and source is not None:
            names = naming.named_in(sources, event, body)
            said = _said(source, event, body, jobs[event.id], rows)
        entries.append(
            Entry(
                event=event,
                jobs=jobs[event.id],
                said=said,
                names=tuple(name for name in names if name != wanted),
                erasure=erasures.get(event.id),
            )
        )
    return tuple(entries)


def _said(
    source: Source,
    event: ListedEvent,
    body: bytes,
    jobs: Sequence[JobRecord],
    rows: Sequence[ModelRow],
) -> tuple[Said, ...]:
    """Return what an event says of those of the rows that it is about."""
    if source.read_model is None:
        return ()
    try:
        data = source.parse(body).data
    except InvalidEnvelope:
        return ()
    states = {job.processor: job.state for job in jobs}
    return tuple(
        Said(table=row.table, column=column, value=value, fate=fate)
        for row in rows
        for column, value in _values(row, event.type, data)
        for fate in [_fate(row, column, event.event_id, states)]
    )


def _values(row: ModelRow, event_type: str, data: Mapping[str, Any]) -> list[tuple[str, str]]:
    provenance = PROVENANCE[row.table]
    names = (data[name] for name in provenance.key_fields if data.get(name) is not None)
    if str(next(names, None)) != row.key:
        return []
    fields = provenance.says.get(event_type, {})
    return [
        (column, text)
        for column, name in fields.items()
        if name in data and (text := _text(data[name])) is not None
    ]


def _fate(
    row: ModelRow, column: str, event_id: str, states: Mapping[str, str]
) -> Literal["set", "replaced", "not applied"]:
    if any(one.column == column and one.event_id == event_id for one in row.fields):
        return "set"
    # The processor of a table is called after it.
    return "replaced" if states.get(row.table) == "succeeded" else "not applied"


def _events_of_rows(
    connection: Connection, sources: Mapping[str, Source], known: Known
) -> dict[str, UUID]:
    """Return the events that rows and changes come from, by their ids at the sender."""
    of_fields = {one.event_id for row in known.rows for one in row.fields}
    event_ids = sorted(filter(None, of_fields | {change.event_id for change in known.changes}))
    if not event_ids:
        return {}
    feeding = [slug for slug, source in sources.items() if source.read_model is not None]
    return read_model.events_called(connection, [*feeding, operator.SLUG], event_ids)


def _row(row: ModelRow, events: Mapping[str, UUID]) -> Row:
    return Row(
        table=row.table,
        key=row.key,
        fields=tuple(
            FieldValue(
                column=one.column,
                value=_text(one.value) or "…",
                event=events.get(one.event_id or ""),
                event_id=one.event_id,
            )
            for one in row.fields
        ),
    )


def _change(change: Change, events: Mapping[str, UUID]) -> StatusChange:
    return StatusChange(
        status_before=change.status_before,
        status=change.status,
        at=change.at,
        event=events.get(change.event_id),
        event_id=change.event_id,
    )


def _erasures(
    connection: Connection, wanted: Entity, of_events: Mapping[int, datetime]
) -> tuple[Erasure, ...]:
    """Return the erasures that took events of the page, and those of the person by this name."""
    digests = records.person_digests(connection, [(wanted.kind, wanted.value)])
    of_person = {
        one.id: one.requested_at
        for one in records.of_person(connection, digests)
        if one.status == records.FINISHED
    }
    times = {**of_events, **of_person}
    return tuple(Erasure(id=number, requested_at=times[number]) for number in sorted(times))


def _text(value: Any) -> str | None:
    """Return a value as it is shown; None: it is a list or an object."""
    if isinstance(value, dict | list):
        return None
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return f"{value:f}" if abs(value.adjusted()) < _LONGEST_VALUE else str(value)
    return str(value)[:_LONGEST_VALUE]
