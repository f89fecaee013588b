"""Deliveries by themselves: one with what was sent, and the list of all of an event."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from ingest.console.ui.masking import HIDDEN, mask_phones
from ingest.store import past_events
from ingest.store.search import events
from ingest.store.search.events import Element, WholeDelivery
from ingest.store.search.named import by_id

SHOWN_ELEMENTS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDelivery:
    """A delivery, and what became of it."""

    delivery: WholeDelivery
    event: UUID | None
    """The event that it is of. None: it is rejected, not admitted yet, or holds several events."""
    past_event: UUID | None
    """The event that it repeats, if retention has removed that."""
    elements: Sequence[Element]
    """The first of the events that it holds; empty: it is one event, or none."""
    has_more: bool
    """Whether it holds further ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryDetails:
    """A delivery with what was sent."""

    id: UUID
    source: str
    received_at: datetime
    event: UUID | None
    """The event that it is of. None: it is rejected, not admitted yet, or holds several events."""
    past_event: UUID | None
    """The event that it repeats, if retention has removed that."""
    rejected: str | None
    """Why it holds no event; None: it is not rejected."""
    part_of: UUID | None
    """The delivery that it is an element of; None: it is a delivery."""
    position: int | None
    """Its place there, from 0."""
    key_id: str
    headers: tuple[tuple[str, str], ...]
    body: str | None
    """As received. None: it was erased, or cannot be decrypted."""
    unreadable: str | None
    """Why the body cannot be decrypted, as a sentence."""
    elements: tuple[Element, ...]
    """The first of the events that it holds; empty: it is one event, or none."""
    has_more: bool
    """Whether it holds further ones."""
    masked: bool


def read(connection: Connection, delivery: UUID, *, masked: bool) -> StoredDelivery:
    """Return a delivery and what became of it. Its body is not masked.

    Raises:
        NotFound: there is none of that id, or its day was dropped.
    """
    stored = events.delivery(connection, delivery)
    elements = events.elements(connection, delivery, most=SHOWN_ELEMENTS + 1)
    event = None if elements else next(iter(by_id(connection, delivery)), None)
    shown = elements[:SHOWN_ELEMENTS]
    return StoredDelivery(
        delivery=stored,
        event=event,
        past_event=None if event else past_events.of_duplicate(connection, delivery),
        elements=[_masked(element) for element in shown] if masked else shown,
        has_more=len(elements) > len(shown),
    )


def details(connection: Connection, delivery: UUID, *, masked: bool) -> DeliveryDetails:
    """Return a delivery as the API tells of it. Raises NotFound as `read`."""
    stored = read(connection, delivery, masked=masked)
    sent = stored.delivery
    body = None if sent.body is None else sent.body.decode("utf-8", "replace")
    return DeliveryDetails(
        id=sent.id,
        source=sent.source,
        received_at=sent.received_at,
        event=stored.event,
        past_event=stored.past_event,
        rejected=sent.rejected,
        part_of=sent.part_of,
        position=sent.position,
        key_id=sent.key_id,
        headers=tuple((str(name), str(value)) for name, value in sent.headers),
        body=HIDDEN if masked and body is not None else body,
        unreadable=sent.unreadable,
        elements=tuple(stored.elements),
        has_more=stored.has_more,
        masked=masked,
    )


def _masked(element: Element) -> Element:
    return replace(
        element,
        event_id=element.event_id and mask_phones(element.event_id),
        type=element.type and mask_phones(element.type),
    )
