"""One event with its deliveries, jobs and attempts, as pages and API show it."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import Connection

from ingest.console.services.addresses import EntityLink
from ingest.console.ui import masking
from ingest.console.ui.json_view import pretty
from ingest.console.ui.masking import HIDDEN
from ingest.sources.base import Source
from ingest.sources.registry import classes
from ingest.sources.titles import Title
from ingest.store import copies
from ingest.store.copies import Copy
from ingest.store.reports import event_detail
from ingest.store.reports.event_detail import DeliveryRecord, EventHistory, JobRecord
from ingest.store.search.titles import of_history

_MAX_DELIVERIES = 50
_MAX_CONFLICTS = 5
"""How many of an event's deliveries, and of its differing bodies, are read."""
_DIFF_LINES = 300
"""Lines of a body that are compared. At worst the time grows with their square."""
_DIFF_KINDS: dict[str, Literal["added", "removed"]] = {"+": "added", "-": "removed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """How a delivery was signed."""

    key_id: str | None
    """Which secret matched; None: retention dropped the delivery."""
    signed_at: datetime | None
    skew_s: float | None
    """Seconds from the signing to the receipt, each by its own clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffLine:
    """A line of the difference between two bodies."""

    kind: Literal["added", "removed", "same"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryView:
    """One delivery of an event."""

    id: UUID
    received_at: datetime
    is_first: bool
    conflict: bool
    signature: Signature
    headers: tuple[tuple[str, str], ...] | None
    kept: bool
    """Whether its body is stored. Retention drops bodies by the day."""
    part_of: UUID | None
    """The delivery of several events that it came in; None: it came alone."""
    position: int | None
    """Its place there, from 0."""
    body: str | None
    """As received. Only the first delivery has it, and the first few whose bodies differ."""
    unreadable: str | None
    """Why the body cannot be decrypted, as a sentence."""
    difference: tuple[DiffLine, ...]
    """What differs from the first delivery's body; empty: nothing does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """An event, its deliveries (oldest first) and its jobs."""

    id: UUID
    source: str
    event_id: str
    type: str
    title: Title | None
    """What happened, in a few words; its type, if nothing says more."""
    state: str
    received_at: datetime
    delivered: int
    """The number of all deliveries; `deliveries` has the first of them."""
    deliveries: tuple[DeliveryView, ...]
    jobs: tuple[JobRecord, ...]
    origin: Copy | None
    """The event that this one was made of, by an operator; None: a sender sent it."""
    copies: tuple[Copy, ...]
    """What operators made of it, newest first."""
    entities: tuple[EntityLink, ...]
    """What its body names: orders, conversations, contacts, messages and phone numbers."""
    masked: bool
    """Whether bodies, error messages and phone numbers are hidden."""


EntitiesOf = Callable[[EventHistory], tuple[EntityLink, ...]]
"""Returns what an event names."""


def read(
    connection: Connection,
    event: UUID,
    *,
    sources: Mapping[str, Source],
    masked: bool,
    entities: EntitiesOf = lambda _: (),
) -> EventView:
    """Return an event by its id, titled by its source.

    Raises:
        NotFound: there is no such event.
    """
    record = event_detail.of_event(
        connection, event, most=_MAX_DELIVERIES, conflicts=_MAX_CONFLICTS
    )
    return from_history(
        record,
        title=of_history(sources, record),
        masked=masked,
        entities=entities(record),
        origin=copies.origin_of(connection, event),
        made_of_it=copies.of_event(connection, event),
    )


def from_history(
    event: EventHistory,
    *,
    title: Title | None = None,
    masked: bool,
    entities: tuple[EntityLink, ...] = (),
    origin: Copy | None = None,
    made_of_it: Sequence[Copy] = (),
) -> EventView:
    """Return a stored event as it is shown."""
    first = event.deliveries[0]
    return EventView(
        id=event.id,
        source=event.source,
        event_id=masking.mask_phones(event.event_id) if masked else event.event_id,
        type=masking.mask_phones(event.type) if masked else event.type,
        title=masking.title(title, masked=masked),
        state=event.state,
        received_at=event.received_at,
        delivered=event.delivered,
        deliveries=tuple(
            _delivery(delivery, first, event.source, masked=masked) for delivery in event.deliveries
        ),
        jobs=tuple(masking.job(job, masked=masked) for job in event.jobs),
        origin=None if origin is None else masking.copy(origin, masked=masked),
        copies=tuple(masking.copy(copy, masked=masked) for copy in made_of_it),
        entities=entities,
        masked=masked,
    )


def _delivery(
    delivery: DeliveryRecord, first: DeliveryRecord, source: str, *, masked: bool
) -> DeliveryView:
    body = None if delivery.body is None else _decode(delivery.body)
    headers = None
    if delivery.headers is not None:
        headers = tuple((str(name), str(value)) for name, value in delivery.headers)
    return DeliveryView(
        id=delivery.id,
        received_at=delivery.received_at,
        is_first=delivery.id == first.id,
        conflict=delivery.conflict,
        signature=_signature(delivery, headers, source),
        headers=headers,
        kept=delivery.kept,
        part_of=delivery.part_of,
        position=delivery.position,
        body=HIDDEN if masked and body is not None else body,
        unreadable=delivery.unreadable,
        difference=() if masked else _difference(first, delivery),
    )


def _signature(
    delivery: DeliveryRecord, headers: Sequence[tuple[str, str]] | None, slug: str
) -> Signature:
    source = classes().get(slug)
    signed_at = None if source is None else source.signed_at(dict(headers or ()))
    skew_s = None
    if signed_at is not None:
        skew_s = round((delivery.received_at - signed_at).total_seconds(), 3)
    return Signature(key_id=delivery.key_id, signed_at=signed_at, skew_s=skew_s)


def _difference(first: DeliveryRecord, other: DeliveryRecord) -> tuple[DiffLine, ...]:
    if not other.conflict or first.body is None or other.body is None:
        return ()
    return difference(first.body, other.body)


def difference(first: bytes, other: bytes) -> tuple[DiffLine, ...]:
    """Compare the beginnings of two bodies, and return what differs with its context."""
    before, after = (pretty(_decode(body)).splitlines()[:_DIFF_LINES] for body in (first, other))
    lines = list(difflib.unified_diff(before, after, lineterm=""))[2:]  # without the file names
    return tuple(
        DiffLine(kind=_DIFF_KINDS.get(line[:1], "same"), text="…" if line[:2] == "@@" else line[1:])
        for line in lines
    )


def _decode(body: bytes) -> str:
    return body.decode("utf-8", "replace")
