"""Lists of events by the time that they were received, newest or oldest first."""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine

from ingest import ids
from ingest.errors import NotFound
from ingest.sources.titles import Title
from ingest.store.encryption.opening import to_show
from ingest.store.reports.failures import ERROR_TYPE
from ingest.store.search.filters import EventFilter, narrow, state_of_event
from ingest.store.search.id_range import Span, next_id
from ingest.store.search.named import named_by
from ingest.store.search.scan import Slice, walk
from ingest.store.sql import statement


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedEvent:
    """An event as a line of a list."""

    id: UUID
    source: str
    event_id: str
    type: str
    state: str
    """As far as the processor goes, in a list by processor."""
    received_at: datetime
    deliveries: int
    """How often it was delivered."""
    conflicts: bool
    """Whether a delivery's content differs from the first's."""
    error: str | None
    """The type and the message of what its dead or retrying job failed with last."""
    title: Title | None = None
    """What happened, in a few words (ingest.store.search.titles); its type, if nothing says more.
    None: nobody asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of a list, and where its neighbours begin."""

    events: tuple[ListedEvent, ...]
    older: UUID | None
    """What to give as `before` for the next page; None: there is no older event."""
    newer: UUID | None
    """What to give as `after` for the page before; None: nothing is known to be newer. In a list
    with the oldest first these two change places."""
    reached: datetime | None
    """The time was up: between here and the end there may be more, which the next page goes on to
    look for."""
    named: tuple[ListedEvent, ...]
    """On the first page of a search: events that the text names exactly, wherever in the list they
    are, but for those of this page."""


def events(
    connection: Connection, selection: EventFilter, *, limit: int, oldest_first: bool = False
) -> Iterator[ListedEvent]:
    """Return the newest `limit` events of a selection, or the oldest, as they are found.

    What it costs depends on `limit` and on how many events are in the state that is asked for, not
    on how many there are. A search is the exception: what it names exactly comes first; then it
    reads on, from the newest event to the oldest, for whatever contains it.
    """
    return itertools.islice(_found(connection, selection, limit, oldest_first), limit)


def _found(
    connection: Connection, selection: EventFilter, limit: int, oldest_first: bool
) -> Iterator[ListedEvent]:
    named = _named(connection, selection)
    yield from named
    already = {event.id for event in named}
    span = Span(newer=oldest_first)
    for part in walk(connection, selection, span, select=_shown(selection), wanted=limit):
        for event in _events(part, newer=oldest_first):
            if event.id not in already:
                yield event


def page(
    connection: Connection,
    selection: EventFilter,
    *,
    limit: int,
    before: UUID | None = None,
    after: UUID | None = None,
    oldest_first: bool = False,
    budget_s: float = 0.1,
    types_of: Mapping[str, Sequence[str]] | None = None,
) -> Page:
    """Return `limit` events of a selection: the first, or those next to the end of another page.

    Args:
        connection: in whose transaction to read.
        selection: which events.
        limit: how many, at most.
        before: only older ones; from `Page.older`.
        after: only newer ones, of these the oldest; from `Page.newer`.
        oldest_first: the order of the list; otherwise the newest come first.
        budget_s: seconds after which to look no further. A page that has found less says how far
            it has looked, and its neighbour goes on from there.
        types_of: the types that each processor works on. A list by processor that is given these
            leads soon to the few events of a rare type; jobs from when the processor had other
            types are not found by it.
    """
    began = time.perf_counter()
    is_first = before is after is None
    span = _span(before, after)
    span = replace(span, newer=oldest_first) if is_first else span
    hits: list[ListedEvent] = []
    reached: UUID | None = None
    for part in walk(
        connection, selection, span, select=_shown(selection), wanted=limit + 1, types_of=types_of
    ):
        hits += _events(part, newer=span.newer)
        reached = part.reached
        if len(hits) > limit or time.perf_counter() - began >= budget_s:
            break
    is_full = len(hits) > limit
    shown = hits[:limit]
    further = shown[-1].id if is_full else reached
    nearer = None if is_first else _back(span, shown)
    named = _named(connection, selection) if is_first else []
    return Page(
        events=tuple(shown if span.newer == oldest_first else reversed(shown)),
        older=nearer if span.newer else further,
        newer=further if span.newer else nearer,
        reached=None if is_full or reached is None else ids.received_at(reached),
        named=tuple(event for event in named if event not in shown),
    )


def batches(
    engine: Engine, selection: EventFilter, *, sizes: tuple[int, int], oldest_first: bool
) -> Iterator[Sequence[ListedEvent]]:
    """Return all events of a selection in batches, some of them empty: of the first size, then of
    the second. Each is read in a transaction of its own, for a second at most, so that no long one
    keeps old rows alive. What is received meanwhile is not listed with the newest first."""
    with engine.connect() as connection:
        selection = narrow(connection, selection)
    span: Span | None = Span(newer=oldest_first)
    size = sizes[0]
    while span is not None:
        with engine.connect() as connection:
            batch, span = _batch(connection, selection, span, size)
        yield batch
        size = sizes[1]


def _batch(
    connection: Connection, selection: EventFilter, span: Span, size: int
) -> tuple[Sequence[ListedEvent], Span | None]:
    """Return some events of a span, and what is left of it."""
    began = time.perf_counter()
    hits: list[ListedEvent] = []
    for part in walk(connection, selection, span, select=_shown(selection), wanted=size):
        hits += _events(part, newer=span.newer)
        if len(hits) >= size:
            return hits[:size], span.past(hits[size - 1].id)
        if part.reached is None:
            break
        if time.perf_counter() - began >= _BATCH_S:
            return hits, span.past(part.reached)
    return hits, None


def _span(before: UUID | None, after: UUID | None) -> Span:
    span = Span(newer=after is not None and before is None)
    if after is not None:
        span = replace(span, low=next_id(after))
    return span if before is None else replace(span, high=before)


def _back(span: Span, shown: Sequence[ListedEvent]) -> UUID:
    """Return the bound at which the previous page begins. Any id is a bound, with or without an
    event."""
    if shown:
        return shown[0].id
    return span.low if span.newer else UUID(int=max(span.high.int - 1, 0))


def _named(connection: Connection, selection: EventFilter) -> list[ListedEvent]:
    """Return what the one text of a search names exactly, newest first."""
    if len(selection.texts) != 1 or selection.names_events:
        return []
    named = named_by(connection, selection.texts[0])
    if not named:
        return []
    exactly = replace(selection, search=None, ids=named)
    parts = walk(connection, exactly, Span(), select=_shown(exactly), wanted=len(named))
    return [event for part in parts for event in _events(part)]


def _events(part: Slice, *, newer: bool = False) -> list[ListedEvent]:
    events_of_part = [
        ListedEvent(**{name: row[name] for name in _COLUMNS})
        for row in part.rows
        if row["id"] is not None
    ]
    return sorted(events_of_part, key=lambda event: event.id, reverse=not newer)


_BATCH_S = 1.0
_COLUMNS = tuple(field.name for field in fields(ListedEvent) if field.name != "title")


def _shown(selection: EventFilter) -> str:
    of_processor = "" if selection.processor is None else "AND jobs.processor = :processor"
    return f"""
    SELECT events.id, events.source, events.event_id, events.type, summary.state,
           events.received_at, repeats.deliveries, repeats.conflicts, CASE
               WHEN summary.state IN ('dead', 'retrying') THEN (
                   SELECT concat_ws(': ', last.error_type, last.error_message)
                   FROM ingest.jobs CROSS JOIN LATERAL (
                       SELECT {ERROR_TYPE} AS error_type, a.error_message, a.finished_at
                       FROM ingest.attempts AS a
                       WHERE a.job = jobs.id
                         AND a.outcome NOT IN ('succeeded', 'snoozed', 'released')
                       ORDER BY a.number DESC LIMIT 1
                   ) AS last
                   WHERE jobs.event = events.id AND jobs.state = summary.state
                     AND jobs.discarded_at IS NULL {of_processor}
                   ORDER BY last.finished_at DESC LIMIT 1
               )
           END AS error
    FROM hits AS events
    CROSS JOIN LATERAL ({state_of_event(selection)}) AS summary
    CROSS JOIN LATERAL (
        SELECT 1 + count(*) AS deliveries, coalesce(bool_or(conflict), false) AS conflicts
        FROM ingest.duplicates WHERE event = events.id
    ) AS repeats
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeDelivery:
    """A stored delivery with what was sent."""

    id: UUID
    source: str
    received_at: datetime
    rejected: str | None
    part_of: UUID | None
    """The delivery that it is an element of; None: it is a delivery."""
    position: int | None
    """Its place there, from 0."""
    key_id: str
    headers: list[tuple[str, str]]
    body: bytes | None
    """None: it was erased, or cannot be decrypted."""
    unreadable: str | None
    """Why it cannot be decrypted, as a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One of the events of a delivery, or an element of it that is none."""

    id: UUID
    position: int
    """Its place in the delivery, from 0."""
    event: UUID | None
    """None: it is rejected, or not admitted yet."""
    event_id: str | None
    type: str | None
    is_duplicate: bool
    is_of_past: bool
    """Whether it is a duplicate of an event that retention has removed."""
    conflict: bool
    """Whether its content differs from the event's first delivery."""
    rejected: str | None


def delivery(connection: Connection, identity: UUID) -> WholeDelivery:
    """Return one delivery.

    Raises:
        NotFound: there is none of that id, or its day was dropped.
    """
    row = connection.execute(_DELIVERY, {"id": identity}).mappings().one_or_none()
    if row is None:
        raise NotFound(f"There is no delivery {identity}.", reason="not_found")
    columns = dict(row)
    key, stored = columns.pop("body_key"), columns.pop("body")
    shown = to_show(connection, stored, delivery=identity, key=key)
    place = None if row["part_of"] is None else ids.position(row["part_of"], identity)
    return WholeDelivery(**columns, position=place, body=shown.body, unreadable=shown.unreadable)


def elements(
    connection: Connection, delivery: UUID, *, most: int = ids.MAX_ELEMENTS
) -> list[Element]:
    """Return the first `most` elements of a delivery in their order; empty: it is one event, or
    none."""
    bounds = {"id": delivery, "last": ids.last_element_id(delivery), "most": most}
    return [
        Element(**row, position=ids.position(delivery, row["id"]))
        for row in connection.execute(_ELEMENTS, bounds).mappings()
    ]


_DELIVERY = statement(
    "SELECT id, source, received_at, rejected, part_of, key_id, headers, body, body_key"
    " FROM ingest.deliveries WHERE id = :id"
)
_ELEMENTS = statement(
    """
    SELECT d.id, d.rejected, e.id AS event, e.event_id, e.type,
           repeated.event IS NOT NULL AS is_duplicate,
           repeated.event IS NOT NULL AND e.id IS NULL AS is_of_past,
           coalesce(repeated.conflict, false) AS conflict
    FROM ingest.deliveries d
    LEFT JOIN LATERAL (
        SELECT event, conflict FROM ingest.duplicates WHERE delivery = d.id LIMIT 1
    ) AS repeated ON true
    LEFT JOIN LATERAL (
        SELECT id, event_id, type FROM ingest.events
        WHERE id = coalesce(repeated.event, d.id) LIMIT 1
    ) AS e ON true
    WHERE d.id > :id AND d.id <= :last AND d.part_of = :id
    ORDER BY d.id LIMIT :most
    """
)
