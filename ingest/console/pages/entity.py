"""The page of one order, conversation, contact, message or phone number."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.dependencies import PAGE_SIZE
from ingest.console.pages.site import Site
from ingest.console.services.entity_view import EntityView
from ingest.console.ui.paths import link, parse_uuid
from ingest.entities.timeline import Order, Place
from ingest.sources import operator


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A link that changes which events are shown."""

    label: str
    href: str
    is_active: bool
    number: int | None = None
    """How many events it shows; None: as many as now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityPage:
    """The view model of `entity.html`."""

    shown: EntityView
    orders: tuple[Choice, ...]
    senders: tuple[Choice, ...]
    """Empty if all events are of one sender."""
    before_page: str | None
    """The link to the events that stand before these; None: there are none."""
    after_page: str | None
    is_ambiguous: bool
    """Whether several senders use the id, each for a thing of its own."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the page's routes."""
    return [site.get("/entities/{kind}/{name}", show, name="entity")]


def show(site: Site, request: Request) -> Response:
    """Show what is stored of an entity, and a page of its events."""
    place = _place(request)
    shown = site.console.entities.read(
        request.path_params["kind"],
        request.path_params["name"],
        place,
        masked=site.masks(request),
    )
    path = shown.entity.href
    older, newer = _neighbours(path, place, shown)
    is_newest_first = place.order is Order.NEWEST
    view = EntityPage(
        shown=shown,
        orders=tuple(
            Choice(
                label=label,
                href=_href(path, replace(place, order=order, before=None, after=None)),
                is_active=place.order is order,
            )
            for order, label in _ORDERS.items()
        ),
        senders=_senders(path, place, shown.sources),
        before_page=newer if is_newest_first else older,
        after_page=older if is_newest_first else newer,
        is_ambiguous=len(shown.sources.keys() - {operator.SLUG}) > 1
        and shown.entity.kind != "phone",
    )
    return site.render(request, "entity.html", view, section="events")


_ORDERS: Mapping[Order, str] = {Order.NEWEST: "Newest first", Order.OLDEST: "Oldest first"}


def _place(request: Request) -> Place:
    parameters = request.query_params
    is_oldest = parameters.get("order") == Order.OLDEST
    return Place(
        order=Order.OLDEST if is_oldest else Order.NEWEST,
        before=parse_uuid(parameters.get("before")),
        after=parse_uuid(parameters.get("after")),
        source=(parameters.get("source") or "").replace("\x00", "") or None,
        limit=PAGE_SIZE,
    )


def _neighbours(path: str, place: Place, shown: EntityView) -> tuple[str | None, str | None]:
    """Return the links to older and to newer events."""
    anywhere = replace(place, before=None, after=None)
    older = None if shown.older is None else replace(anywhere, before=shown.older)
    newer = None if shown.newer is None else replace(anywhere, after=shown.newer)
    return (
        None if older is None else _href(path, older),
        None if newer is None else _href(path, newer),
    )


def _senders(path: str, place: Place, sources: Mapping[str, int]) -> tuple[Choice, ...]:
    if len(sources) < 2:
        return ()
    anywhere = replace(place, before=None, after=None)
    numbers: list[tuple[str | None, int]] = [(None, sum(sources.values())), *sources.items()]
    return tuple(
        Choice(
            label=slug or "all senders",
            href=_href(path, replace(anywhere, source=slug)),
            is_active=place.source == slug,
            number=number,
        )
        for slug, number in numbers
    )


def _href(path: str, place: Place) -> str:
    order = None if place.order is Order.NEWEST else place.order
    return link(path, order=order, source=place.source, before=place.before, after=place.after)
