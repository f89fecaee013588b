"""The page of one delivery that is rejected, or that holds several events."""

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.pages.event import SHOWN_BYTES
from ingest.console.pages.site import Site, redirect
from ingest.console.ui.masking import HIDDEN, mask_phones
from ingest.errors import NotFound
from ingest.store.search import events
from ingest.store.search.events import Element, WholeDelivery
from ingest.store.search.filters import resolve

_SHOWN_ELEMENTS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPage:
    """The view model of `delivery.html`."""

    delivery: WholeDelivery
    elements: Sequence[Element]
    """The first of the events that it holds; empty: it is no event."""
    has_more: bool
    """Whether it holds further ones."""
    body: str
    is_cut: bool
    """Whether `body` is only the beginning."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the page's routes."""
    return [site.get("/deliveries/{id:uuid}", show, name="delivery")]


def show(site: Site, request: Request) -> Response:
    """Show a rejected delivery or one of several events; redirect to the event of any other."""
    masks = site.masks(request)
    with site.console.engine.connect() as connection:
        delivery = events.delivery(connection, request.path_params["id"])
        elements = events.elements(connection, delivery.id, most=_SHOWN_ELEMENTS + 1)
        if not elements:
            with contextlib.suppress(NotFound):
                return redirect(f"/events/{resolve(connection, [str(delivery.id)])[0]}")
    shown = elements[:_SHOWN_ELEMENTS]
    raw = b"(erased)" if delivery.body is None else delivery.body
    beginning = raw[:SHOWN_BYTES].decode("utf-8", "replace")
    view = DeliveryPage(
        delivery=delivery,
        elements=[_masked(element) for element in shown] if masks else shown,
        has_more=len(elements) > len(shown),
        body=HIDDEN if masks else beginning,
        is_cut=len(raw) > SHOWN_BYTES,
    )
    return site.render(request, "delivery.html", view, section="events" if elements else "failures")


def _masked(element: Element) -> Element:
    return dataclasses.replace(
        element,
        event_id=element.event_id and mask_phones(element.event_id),
        type=element.type and mask_phones(element.type),
    )
