"""The page of one rejected delivery."""

import contextlib
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.pages.event import SHOWN_BYTES
from ingest.console.pages.site import Site, redirect
from ingest.console.ui.masking import HIDDEN
from ingest.errors import NotFound
from ingest.store.search import events
from ingest.store.search.events import WholeDelivery
from ingest.store.search.filters import resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPage:
    """The view model of `delivery.html`."""

    delivery: WholeDelivery
    body: str
    is_cut: bool
    """Whether `body` is only the beginning."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the page's routes."""
    return [site.get("/deliveries/{id:uuid}", show, name="delivery")]


def show(site: Site, request: Request) -> Response:
    """Show a rejected delivery, or redirect to the event that a delivery belongs to."""
    with site.console.engine.connect() as connection:
        delivery = events.delivery(connection, request.path_params["id"])
        with contextlib.suppress(NotFound):
            return redirect(f"/events/{resolve(connection, [str(delivery.id)])[0]}")
    beginning = delivery.body[:SHOWN_BYTES].decode("utf-8", "replace")
    view = DeliveryPage(
        delivery=delivery,
        body=HIDDEN if site.masks(request) else beginning,
        is_cut=len(delivery.body) > SHOWN_BYTES,
    )
    return site.render(request, "delivery.html", view, section="failures")
