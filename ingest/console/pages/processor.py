"""The page of one processor."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus

from markupsafe import Markup
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.pages import part as parts
from ingest.console.pages.part import Part
from ingest.console.pages.site import Site, time_range
from ingest.console.services import processor_detail, ranges
from ingest.console.services.processor_detail import ProcessorDetails, ProcessorPeriod
from ingest.console.services.ranges import Range
from ingest.console.ui import masking
from ingest.console.ui.charts import Series, bars, lines
from ingest.console.ui.paths import events_between
from ingest.errors import NotFound
from ingest.store.search import events
from ingest.store.search.events import ListedEvent
from ingest.store.search.filters import EventFilter
from ingest.store.search.titles import titled

_LISTED = 10
"""Dead letters, and last events."""
_BUDGET_S = 0.02
"""Seconds for looking for each of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorPage:
    """The view model of `processor.html`."""

    processor: ProcessorDetails
    range: Range
    """What rates, percentiles and charts cover, unless they are of a part of the past."""
    part: Part | None
    period: str
    """The parameters of the page's address that say of which time it is."""
    attempts: Markup
    """The chart of attempts over time, by outcome."""
    took: Markup
    """The chart of the time that a call takes."""
    newest_dead: tuple[ListedEvent, ...]
    """The newest."""
    newest_events: tuple[ListedEvent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownProcessorPage:
    """The view model of `unknown_processor.html`."""

    name: str
    names: tuple[str, ...]
    """Those that there are, those first that resemble it."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the page's route. Names may hold anything."""
    return [site.get("/processors/{name:path}", show, name="processor")]


def show(site: Site, request: Request) -> Response:
    """Show all about a processor, or which there are."""
    name: str = request.path_params["name"]
    now, masked = site.console.now(), site.masks(request)
    period, part = time_range(request, default=Range.HOUR), parts.of_request(request, now=now)
    window = part or ranges.window(period, now)
    with site.console.engine.connect() as connection:
        try:
            details = processor_detail.read(
                connection,
                name,
                window,
                destinations=site.console.destinations,
                now=now,
                masked=masked,
            )
        except NotFound:
            known = processor_detail.names(connection, close_to=name)
            return _unknown(site, request, UnknownProcessorPage(name=name, names=tuple(known)))
        dead = _events(site, connection, details, state="dead") if details.work.dead else ()
        last = _events(site, connection, details, state=None)
    view = ProcessorPage(
        processor=details,
        range=period,
        part=parts.shown(part, processor=name) if part else None,
        period=parts.parameters(part, period),
        attempts=_attempts(name, details.period),
        took=_took(details.period),
        newest_dead=masking.events(dead, masked=masked),
        newest_events=masking.events(last, masked=masked),
    )
    return site.render(request, "processor.html", view, section="processors", as_of=now)


def _unknown(site: Site, request: Request, view: UnknownProcessorPage) -> Response:
    template = "unknown_processor.html"
    page = site.render(request, template, view, section="processors", refresh_s=None)
    page.status_code = HTTPStatus.NOT_FOUND
    return page


def _events(
    site: Site, connection: Connection, details: ProcessorDetails, *, state: str | None
) -> Sequence[ListedEvent]:
    """Return the newest events of a processor, as far as they are soon found."""
    page = events.page(
        connection,
        EventFilter(processor=details.name, state=state),
        limit=_LISTED,
        budget_s=_BUDGET_S,
        types_of={details.name: details.types} if details.types else None,
    )
    return titled(connection, page.events, site.console.sources)


def _attempts(name: str, period: ProcessorPeriod) -> Markup:
    spans = period.spans
    counts = [
        ("succeeded", [span.succeeded for span in spans]),
        ("failed", [span.failed for span in spans]),
    ]
    series = [
        Series(
            name=outcome,
            tone=outcome,
            values=values,
            link=events_between(processor=name),
        )
        for outcome, values in counts
    ]
    return bars(
        series,
        [span.begins for span in spans],
        span=timedelta(seconds=period.span_s),
        unit="attempts",
        label="Attempts over time",
    )


def _took(period: ProcessorPeriod) -> Markup:
    spans = period.spans
    return lines(
        [
            Series(name="p50", tone="p50", values=[span.p50_s for span in spans]),
            Series(name="p95", tone="p95", values=[span.p95_s for span in spans]),
        ],
        [span.begins for span in spans],
        span=timedelta(seconds=period.span_s),
        label="Time of a call",
    )
