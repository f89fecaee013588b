"""The page that searches events."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.dependencies import PAGE_SIZE
from ingest.console.pages.site import Site, search_text
from ingest.console.services import event_query
from ingest.console.services.addresses import EntityLink
from ingest.console.ui import masking
from ingest.console.ui.paths import link, parse_uuid
from ingest.query import spell
from ingest.store.bulk.replay import DISCARD, REPLAY
from ingest.store.search.counts import Count
from ingest.store.search.events import ListedEvent
from ingest.store.search.filters import EVENT_STATES, EventFilter


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFilter:
    """A link that keeps the search and changes its state."""

    state: str | None
    """None: every state."""
    href: str
    is_active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsPage:
    """The view model of `events.html`."""

    q: str
    """The search as it was typed."""
    problems: tuple[str, ...]
    """What the search's parser did not understand, in sentences."""
    state_filters: tuple[StateFilter, ...]
    offered: tuple[EntityLink, ...]
    """Pages of the orders, customers, … that the search may mean."""
    events: tuple[ListedEvent, ...]
    count: Count
    """The number of all events that match."""
    bulk_scope: Mapping[str, str]
    """Which matching events a bulk action includes, by action."""
    older: str | None
    newer: str | None
    """Links to the neighbouring pages; None: there is none."""
    searched_to: datetime | None
    """How far back the search got before its time was up; None: it finished."""
    search_further: str | None
    """The link that continues such a search."""
    looked_back_to: datetime | None
    """How far back events of senders without a read model were looked for; None: to the first."""
    look_further: str | None
    """The link to a search before then."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the page's routes."""
    return [site.get("/events", show, name="events")]


def show(site: Site, request: Request) -> Response:
    """Show one page of the events that match a search."""
    text = search_text(request)
    query = site.parse_search(request, text)
    result = event_query.find(
        site.console.engine,
        query.selection,
        limit=PAGE_SIZE,
        before=parse_uuid(request.query_params.get("before")),
        after=parse_uuid(request.query_params.get("after")),
    )
    page = result.page
    older = link("/events", q=text, before=page.older) if page.older else None
    view = EventsPage(
        q=text,
        problems=tuple(problem.message for problem in query.problems),
        state_filters=_state_filters(query.selection),
        offered=site.console.entities.offered(
            text, query.selection, (*page.named, *page.events), masked=site.masks(request)
        ),
        events=masking.events((*page.named, *page.events), masked=site.masks(request)),
        count=result.count,
        bulk_scope=bulk_scope(query.selection),
        older=older,
        newer=link("/events", q=text, after=page.newer) if page.newer else None,
        searched_to=page.reached,
        search_further=older if page.reached else None,
        looked_back_to=result.looked_back_to,
        look_further=_before(query.selection, result.looked_back_to),
    )
    return site.render(request, "events.html", view, section="events")


def _before(selection: EventFilter, moment: datetime | None) -> str | None:
    if moment is None:
        return None
    until = moment + timedelta(milliseconds=1)  # the event of that moment was not looked at
    return link("/events", q=spell(replace(selection, until=until)))


def _state_filters(selection: EventFilter) -> tuple[StateFilter, ...]:
    return tuple(
        StateFilter(
            state=state,
            href=link("/events", q=spell(replace(selection, state=state))),
            is_active=selection.state == state,
        )
        for state in (None, *EVENT_STATES)
    )


def bulk_scope(selection: EventFilter) -> Mapping[str, str]:
    """Return which matching events a replay and a discard include: all, or the failed ones."""
    if not selection.means_what_failed:
        return {REPLAY: "all", DISCARD: "all"}
    replayed = "all dead and unhandled" if selection.processor is None else "all dead"
    return {REPLAY: replayed, DISCARD: "all dead"}
