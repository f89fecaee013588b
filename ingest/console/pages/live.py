"""The page of arriving events, and the stream of server-sent events that feeds it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from ingest.console.dependencies import PAGE_SIZE
from ingest.console.pages.site import Site, search_text
from ingest.console.services.live_feed import Batch
from ingest.console.ui import masking
from ingest.console.ui.paths import link
from ingest.console.ui.search_help import TOPICS, Piece, Topic, marked
from ingest.store.search import events
from ingest.store.search.events import ListedEvent
from ingest.store.search.filters import EventFilter
from ingest.store.search.titles import titled

_MAX_DURATION_S = 600.0
"""After it the browser reconnects, and its user's rights are checked again."""
_BUDGET_S = 0.05
"""Seconds for finding the events that are listed first."""
_KEEP_ALIVE_S = 15.0
"""Proxies end a connection that looks idle, so a silent stream sends a comment this often."""
_PARTLY_FILTERED = (
    "New events are filtered by type, source, state and event id only. "
    "The events already listed match the whole search."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePage:
    """The view model of `live.html`."""

    q: str
    problems: tuple[str, ...]
    marked: tuple[Piece, ...]
    """The search, with what was not understood in it marked."""
    topics: tuple[Topic, ...]
    events: tuple[ListedEvent, ...]
    """The newest first."""
    stream_url: str


def routes(site: Site) -> list[BaseRoute]:
    """Return the routes of the page and its stream."""

    async def stream_endpoint(request: Request) -> Response:
        return stream(site, request)

    return [
        site.get("/live", show, name="live"),
        Route("/live/stream", stream_endpoint, methods=["GET"], name="stream"),
    ]


def show(site: Site, request: Request) -> Response:
    """Show the newest events. The page then follows the stream."""
    text = search_text(request)
    query = site.parse_search(request, text)
    with site.console.engine.connect() as connection:
        page = events.page(connection, query.selection, limit=PAGE_SIZE, budget_s=_BUDGET_S)
        newest = titled(connection, page.events, site.console.sources)
    problems = [problem.message for problem in query.problems]
    if not is_checkable(query.selection):
        problems.append(_PARTLY_FILTERED)
    view = LivePage(
        q=text,
        problems=tuple(problems),
        marked=marked(text, query.problems),
        topics=TOPICS,
        events=masking.events(newest, masked=site.masks(request)),
        stream_url=link("/live/stream", q=text),
    )
    return site.render(request, "live.html", view, section="live", refresh_s=None)


def stream(site: Site, request: Request) -> Response:
    """Return the stream of arriving events that match the search, as rendered rows."""
    selection = site.parse_search(request, search_text(request)).selection
    masked = site.masks(request)

    async def messages() -> AsyncIterator[str]:
        yield "retry: 2000\n\n"
        last_sent = asyncio.get_running_loop().time()
        ends = last_sent + _MAX_DURATION_S
        async for batch in site.console.live_feed.watch():
            rows = _rows(site, batch, selection, masked=masked)
            for row in rows:
                yield row
            now = asyncio.get_running_loop().time()
            if rows:
                last_sent = now
            elif now - last_sent > _KEEP_ALIVE_S:
                last_sent = now
                yield ": keep-alive\n\n"
            if now > ends:
                return

    return StreamingResponse(
        messages(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )


def matches(selection: EventFilter, event: ListedEvent) -> bool:
    """Return whether an event matches a selection, as far as its row tells."""
    types, texts = selection.types, selection.texts
    return (
        (not types or any(_matches_type(event.type, pattern) for pattern in types))
        and selection.source in (None, event.source)
        and selection.state in (None, event.state)
        and all(text.lower() in event.event_id.lower() for text in texts)
        and not any(matches(alone, event) for alone in selection.excluded if _is_of_row(alone))
    )


def is_checkable(selection: EventFilter) -> bool:
    """Return whether an event's row tells everything that a selection asks for."""
    checkable = EventFilter(
        types=selection.types,
        source=selection.source,
        state=selection.state,
        search=selection.search,
        excluded=tuple(filter(_is_of_row, selection.excluded)),
    )
    return checkable == selection


def _is_of_row(alone: EventFilter) -> bool:
    """Return whether an event's row tells that it is excluded. A text may be in its body."""
    return alone == EventFilter(types=alone.types, source=alone.source, state=alone.state)


def _rows(site: Site, batch: Batch, selection: EventFilter, *, masked: bool) -> list[str]:
    """Return the messages of a batch: a row for each event that matches."""
    parts = site.templates.env.get_template("parts.html").module
    matching: Sequence[ListedEvent] = [event for event in batch.events if matches(selection, event)]
    rows = [_message(None, str(parts.live_gap()))] if batch.truncated else []  # type: ignore[attr-defined]
    rows += [
        _message(event.id, str(parts.live_row(event)))  # type: ignore[attr-defined]
        for event in masking.events(matching, masked=masked)
    ]
    return rows


def _matches_type(event_type: str, pattern: str) -> bool:
    """Match a type against a pattern with stars, in linear time.

    A regular expression with many stars would backtrack for ever.
    """
    first, *others = pattern.split("*")
    if not others:
        return event_type == pattern
    if not event_type.startswith(first):
        return False
    *middle, last = others
    position = len(first)
    for piece in middle:
        start = event_type.find(piece, position)
        if start < 0:
            return False
        position = start + len(piece)
    return event_type.endswith(last) and len(event_type) - len(last) >= position


def _message(event: UUID | None, html: str) -> str:
    """Return a server-sent event. Its data holds no blank line, which would end it."""
    data = "".join(f"data: {line}\n" for line in html.splitlines() if line.strip())
    return f"id: {event.hex}\n{data}\n" if event else f"{data}\n"
