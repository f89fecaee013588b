"""The live tail as server-sent events: rendered rows, as they arrive."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.templating import Jinja2Templates

from ingest.console.dependencies import LONGEST_QUERY, Console
from ingest.console.services import event_view
from ingest.console.ui import masking
from ingest.store.search.events import ListedEvent
from ingest.store.search.filters import EventFilter

_LASTS_S = 600.0
"""Then the browser connects anew, and whoever may see no more does not."""
_KEEPS_OPEN_S = 15.0
"""A comment this often keeps proxies from ending what seems idle."""


def stream(
    console: Console, templates: Jinja2Templates
) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint."""
    gap = str(templates.env.get_template("parts.html").module.live_gap())  # type: ignore[attr-defined]
    row = templates.env.get_template("parts.html").module.live_row  # type: ignore[attr-defined]

    async def endpoint(request: Request) -> Response:
        who = request.user
        text = request.query_params.get("q", "")[:LONGEST_QUERY]
        query = masking.parse(console.settings, who, text, now=console.now())
        masked = masking.applies(console.settings, who)

        async def rows() -> AsyncIterator[str]:
            yield "retry: 2000\n\n"
            quiet_since = asyncio.get_running_loop().time()
            ends = quiet_since + _LASTS_S
            async for arrived in console.tail.watch():
                shown = [each for each in arrived.events if matches(query.selection, each)]
                if arrived.passed_over:
                    yield _message("", gap)
                for event in event_view.of_listed(shown, masked=masked):
                    yield _message(event.id.hex, str(row(event)))
                now = asyncio.get_running_loop().time()
                if shown:
                    quiet_since = now
                elif now - quiet_since > _KEEPS_OPEN_S:
                    quiet_since = now
                    yield ": still here\n\n"
                if now > ends:
                    return

        return StreamingResponse(
            rows(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    return endpoint


def matches(selection: EventFilter, event: ListedEvent) -> bool:
    """Whether an arriving event is one of a selection, as far as its line tells."""
    return (
        (not selection.types or any(_is_like(event.type, each) for each in selection.types))
        and selection.source in (None, event.source)
        and selection.state in (None, event.state)
        and _says(selection.texts, event)
    )


def is_checked(selection: EventFilter) -> bool:
    """Whether a line tells all that a selection asks for."""
    told = EventFilter(
        types=selection.types,
        source=selection.source,
        state=selection.state,
        search=selection.search,
    )
    return told == selection


def _is_like(event_type: str, pattern: str) -> bool:
    """Piece by piece: a regular expression goes back and forth for ever between many stars."""
    first, *others = pattern.split("*")
    if not others:
        return event_type == pattern
    if not event_type.startswith(first):
        return False
    *middle, last = others
    at = len(first)
    for piece in middle:
        found = event_type.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return event_type.endswith(last) and len(event_type) - len(last) >= at


def _says(texts: Sequence[str], event: ListedEvent) -> bool:
    return all(each.lower() in event.event_id.lower() for each in texts)


def _message(identity: str, html: str) -> str:
    lines = "".join(f"data: {line}\n" for line in html.splitlines() if line.strip())
    return f"id: {identity}\n{lines}\n" if identity else f"{lines}\n"
