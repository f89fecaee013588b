"""The page of one delivery that is rejected, that holds several events, or whose event is gone."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.pages.event import SHOWN_BYTES
from ingest.console.pages.site import Site, redirect
from ingest.console.services import delivery_view
from ingest.console.ui.masking import HIDDEN
from ingest.errors import InvalidEnvelope
from ingest.sources.base import encoded_headers
from ingest.sources.identities import name_body
from ingest.store.search.events import Element, WholeDelivery

_READ_BYTES = 256 * 1024
"""A larger body is not read again for the page: it takes some 10 ms of a thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPage:
    """The view model of `delivery.html`."""

    delivery: WholeDelivery
    past_event: UUID | None
    """The event that it is a duplicate of, if retention has removed that."""
    elements: Sequence[Element]
    """The first of the events that it holds; empty: it is no event."""
    has_more: bool
    """Whether it holds further ones."""
    reading: str | None
    """What its source makes of it now, as a sentence; None: it is not rejected, or not readable."""
    body: str
    is_cut: bool
    """Whether `body` is only the beginning."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the page's routes."""
    return [site.get("/deliveries/{id:uuid}", show, name="delivery")]


def show(site: Site, request: Request) -> Response:
    """Show a rejected delivery, one of several events, or a duplicate of a removed event; redirect
    to the event of any other."""
    masks = site.masks(request)
    with site.console.engine.connect() as connection:
        stored = delivery_view.read(connection, request.path_params["id"], masked=masks)
    if stored.event:
        return redirect(f"/events/{stored.event}")
    raw = stored.delivery.body
    if raw is None:
        raw = f"({stored.delivery.unreadable or 'erased'})".encode()
    beginning = raw[:SHOWN_BYTES].decode("utf-8", "replace")
    view = DeliveryPage(
        delivery=stored.delivery,
        past_event=stored.past_event,
        elements=stored.elements,
        has_more=stored.has_more,
        reading=_reading(site, stored.delivery),
        body=HIDDEN if masks else beginning,
        is_cut=len(raw) > SHOWN_BYTES,
    )
    section = "events" if stored.elements or stored.past_event else "refusals"
    return site.render(request, "delivery.html", view, section=section)


def _reading(site: Site, delivery: WholeDelivery) -> str | None:
    """Say what a rejected delivery would be if it came now: its source may read more than then."""
    source = site.console.sources.get(delivery.source)
    if not delivery.rejected or source is None or delivery.body is None:
        return None
    if len(delivery.body) > _READ_BYTES:
        return None
    named = name_body(source, delivery.body, encoded_headers(delivery.headers))
    if isinstance(named, InvalidEnvelope):
        return f"still rejected: {named}"
    return "an event: replay it"
