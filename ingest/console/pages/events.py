"""The page that searches events."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.dependencies import PAGE_SIZE
from ingest.console.errors import BadRequest
from ingest.console.pages.site import Site, search_text, user
from ingest.console.services import event_query, saved_views
from ingest.console.services.addresses import EntityLink
from ingest.console.ui import masking
from ingest.console.ui.download import Download
from ingest.console.ui.paths import link, parse_uuid
from ingest.console.ui.search_help import TOPICS, Piece, Topic, marked
from ingest.export import Form, WantedExport
from ingest.query import spell
from ingest.store.bulk.replay import DISCARD, REPLAY
from ingest.store.search.counts import Count
from ingest.store.search.events import ListedEvent, Page
from ingest.store.search.filters import EVENT_STATES, EventFilter
from ingest.store.views import View


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
    marked: tuple[Piece, ...]
    """The search, with that marked in it."""
    topics: tuple[Topic, ...]
    """What can be typed."""
    views: tuple[View, ...]
    shown_view: View | None
    """The saved view that this is; None: it is none."""
    oldest_first: bool
    can_export_bodies: bool
    other_order: str
    """The link to the same search in the other order."""
    state_filters: tuple[StateFilter, ...]
    offered: tuple[EntityLink, ...]
    """Pages of the orders, customers, … that the search may mean."""
    processor: str | None
    """The processor that the search names; None: it names none."""
    about: Mapping[UUID, EntityLink]
    """What each event is about, as far as its body tells."""
    events: tuple[ListedEvent, ...]
    count: Count
    """The number of all events that match."""
    bulk_scope: Mapping[str, str]
    """Which matching events a bulk action includes, by action."""
    older: str | None
    newer: str | None
    """Links to the neighbouring pages; None: there is none."""
    read_to: datetime | None
    """How far the list was read; None: to its end."""
    looked_back_to: datetime | None
    """How far back events of senders without a read model were looked for; None: to the first."""
    is_cut: bool
    """Whether only the newest messages were followed to their events."""
    leaves_unfinished: bool
    """Whether not all events that were not worked on were looked through."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the page's routes."""
    return [
        site.get("/events", show, name="events"),
        site.get("/events/export", export, name="export"),
    ]


def show(site: Site, request: Request) -> Response:
    """Show one page of the events that match a search."""
    text, oldest_first = search_text(request), is_oldest_first(request)
    query = site.parse_search(request, text)
    result = event_query.find(
        site.console.engine,
        query.selection,
        sources=site.console.sources,
        limit=PAGE_SIZE,
        before=parse_uuid(request.query_params.get("before")),
        after=parse_uuid(request.query_params.get("after")),
        oldest_first=oldest_first,
    )
    page, here = result.page, _Here(q=text, oldest_first=oldest_first)
    views = saved_views.visible(site.console.engine, site.console.settings, user(request))
    beyond = _before(query.selection, result.looked_back_to, here)
    view = EventsPage(
        q=text,
        problems=tuple(problem.message for problem in query.problems),
        marked=marked(text, query.problems),
        topics=TOPICS,
        views=views,
        shown_view=next(filter(here.is_of, views), None),
        oldest_first=oldest_first,
        can_export_bodies=not site.masks(request),
        other_order=replace(here, oldest_first=not oldest_first).link(),
        state_filters=_state_filters(query.selection, here),
        offered=site.console.entities.offered(
            text, query.selection, (*page.named, *page.events), masked=site.masks(request)
        ),
        processor=query.selection.processor,
        about=site.console.entities.of_list(
            (*page.named, *page.events), masked=site.masks(request)
        ),
        events=masking.events((*page.named, *page.events), masked=site.masks(request)),
        count=result.count,
        bulk_scope=bulk_scope(query.selection),
        older=here.link(before=page.older) if page.older else beyond,
        newer=here.link(after=page.newer) if page.newer else None,
        read_to=_read_to(page, oldest_first=oldest_first),
        looked_back_to=result.looked_back_to,
        is_cut=result.is_cut,
        leaves_unfinished=result.leaves_unfinished,
    )
    return site.render(request, "events.html", view, section="events")


def export(site: Site, request: Request) -> Response:
    """Send what a search means as a file."""
    text = search_text(request)
    query = site.parse_search(request, text)
    if query.problems:
        raise BadRequest(query.problems[0].message, reason="bad_query")
    try:
        form = Form(request.query_params.get("format", Form.CSV))
    except ValueError:
        raise BadRequest(f"The format must be {' or '.join(Form)}.", reason="bad_format") from None
    wanted = WantedExport(
        query=text,
        selection=query.selection,
        form=form,
        oldest_first=is_oldest_first(request),
        with_bodies="bodies" in request.query_params,
    )
    return Download(site.console.exports.begin(user(request), wanted))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Here:
    """The search and the order that a page is of."""

    q: str
    oldest_first: bool

    def link(self, **place: object) -> str:
        return link("/events", q=self.q, sort="oldest" if self.oldest_first else None, **place)

    def is_of(self, view: View) -> bool:
        return (view.query, view.oldest_first) == (self.q, self.oldest_first)


def is_oldest_first(request: Request) -> bool:
    """Return whether the list is to begin with its oldest event."""
    return request.query_params.get("sort") == "oldest"


def _read_to(page: Page, *, oldest_first: bool) -> datetime | None:
    further = page.newer if oldest_first else page.older
    if further is None or page.reached is not None:
        return page.reached
    return page.events[-1].received_at if page.events else None


def _before(selection: EventFilter, moment: datetime | None, here: _Here) -> str | None:
    if moment is None:
        return None
    until = moment + timedelta(milliseconds=1)  # the event of that moment was not looked at
    return replace(here, q=spell(replace(selection, until=until))).link()


def _state_filters(selection: EventFilter, here: _Here) -> tuple[StateFilter, ...]:
    return tuple(
        StateFilter(
            state=state,
            href=replace(here, q=spell(replace(selection, state=state))).link(),
            is_active=selection.state == state,
        )
        for state in (None, *EVENT_STATES)
    )


def bulk_scope(selection: EventFilter) -> Mapping[str, str]:
    """Return which matching events a replay and a discard include: all, or the failed ones."""
    if not selection.means_what_failed:
        return {REPLAY: "all", DISCARD: "all"}
    has_events = selection.processor is None and selection.replay is None
    replayed = "all dead and unhandled" if has_events else "all dead"
    return {REPLAY: replayed, DISCARD: "all dead"}
