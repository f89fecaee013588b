"""The overview: traffic, backlog and health."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest import backlog_words
from ingest.console.pages import overview_charts
from ingest.console.pages import part as parts
from ingest.console.pages.overview_charts import Charts
from ingest.console.pages.part import Part
from ingest.console.pages.site import Site, redirect, time_range, user
from ingest.console.services import overview as overviews
from ingest.console.services import ranges, takers
from ingest.console.services import traffic as traffics
from ingest.console.services.commands import public_url
from ingest.console.services.overview import Overview
from ingest.console.services.ranges import Range, Window
from ingest.console.services.takers import Taken
from ingest.console.services.traffic import Split, Traffic
from ingest.console.ui import masking
from ingest.console.ui.formats import size
from ingest.console.ui.forms import text_field
from ingest.store.pipeline.metrics import describe_unreadable
from ingest.store.pipeline.processors import ProcessorRecord
from ingest.store.reports import newest_dead
from ingest.store.reports.behind import Backlog
from ingest.store.reports.newest_dead import NewestDead

_OUTCOME = "outcome"


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over the range."""

    accepted: int
    """Deliveries, duplicates included."""
    duplicates: int
    rejected: int
    refused: int
    """Requests that were not answered 200."""
    succeeded: int
    """Jobs."""
    failed: int
    """Attempts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """What is behind, in words."""

    amount: str
    parts: str
    """What it consists of."""
    speed: str
    held: str | None
    """What waits for somebody; None: nothing does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceHealth:
    """A service and how it answers."""

    name: str
    is_ok: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewPage:
    """The view model of `overview.html`."""

    overview: Overview
    part: Part | None
    """The part of the past that the traffic is of; None: it is of the range."""
    period: str
    """The parameters of the page's address that say of which time it is."""
    headline: Headline
    totals: Totals
    by: str
    """What the bars are split by: `outcome`, or a Split."""
    charts: Charts
    with_dead_letters: tuple[ProcessorRecord, ...]
    """Processors with dead letters, the most first."""
    newest_dead: Mapping[str, NewestDead]
    """Why the newest dead letter of a processor failed, by its name."""
    taken: Taken
    """Unhandled events that a processor takes by now."""
    unreadable: str | None
    """What the read model could not read, in a sentence; None: it read everything."""
    services: tuple[ServiceHealth, ...]
    is_empty: bool
    """Whether nothing was ever received."""
    receiver_url: str
    can_send_test_event: bool


def routes(site: Site) -> list[BaseRoute]:
    """Return the routes of the page and its form."""
    return [
        site.get("/", show, name="overview"),
        site.post("/test-event", send_test_event, name="test event"),
    ]


def show(site: Site, request: Request) -> Response:
    """Show what arrived, what became of it, and the health of every part."""
    console = site.console
    overview = console.overviews.read(time_range(request, default=Range.HOUR))
    by, part = _split(request), parts.of_request(request, now=overview.now)
    overview, traffic = _traffic(console.engine, overview, by, part)
    with console.engine.connect() as connection:
        newest = newest_dead.by_processor(connection)
        taken = takers.of_unhandled(
            connection, overview.processors, destinations=console.destinations
        )
    dead = [processor for processor in overview.processors if processor.dead]
    unreadable = overview.unreadable
    view = OverviewPage(
        overview=overview,
        part=parts.shown(part) if part else None,
        period=parts.parameters(part, overview.range),
        headline=_headline(overview.backlog),
        totals=_totals(overview),
        by=by.value if by else _OUTCOME,
        charts=overview_charts.draw(overview, traffic),
        with_dead_letters=tuple(sorted(dead, key=lambda processor: -processor.dead)),
        newest_dead=masking.newest_dead(newest, masked=site.masks(request)),
        taken=taken,
        unreadable=describe_unreadable(unreadable, f"in the last {overview.range}")
        if unreadable
        else None,
        services=_services(overview),
        is_empty=overview.is_empty,
        receiver_url=public_url(console.settings, console.settings.default_source),
        can_send_test_event=bool(console.default_source.secrets),
    )
    return site.render(request, "overview.html", view, section="overview", as_of=overview.now)


def send_test_event(site: Site, request: Request, form: FormData) -> Response:
    """Send a signed sample to the receiver."""
    site.console.commands.send_test_event(
        user(request), text_field(form, "type") or None, source=text_field(form, "source") or None
    )
    return redirect("/live")


def _totals(overview: Overview) -> Totals:
    buckets = overview.buckets
    return Totals(
        accepted=sum(bucket.accepted for bucket in buckets),
        duplicates=sum(bucket.duplicates for bucket in buckets),
        rejected=sum(bucket.rejected for bucket in buckets),
        refused=overview.refused,
        succeeded=sum(bucket.succeeded for bucket in buckets),
        failed=sum(bucket.failed for bucket in buckets),
    )


def _headline(backlog: Backlog) -> Headline:
    return Headline(
        amount=backlog_words.amount(backlog),
        parts=backlog_words.parts(backlog),
        speed=backlog_words.speed(backlog),
        held=backlog_words.held_back(backlog) if backlog.held else None,
    )


def _split(request: Request) -> Split | None:
    """Return what the user wants the bars to be split by; None: by what became of it."""
    try:
        return Split(request.query_params.get("by", _OUTCOME))
    except ValueError:
        return None


def _traffic(
    engine: Engine, overview: Overview, by: Split | None, part: Window | None
) -> tuple[Overview, Traffic | None]:
    """Return an overview of the part of the past, if there is one, and its traffic, if that is
    split."""
    if by is None and part is None:
        return overview, None
    with engine.connect() as connection:
        if part is not None:
            overview = overviews.within(connection, overview, part)
        window = part or ranges.window(overview.range, overview.now)
        return overview, None if by is None else traffics.within(
            connection, by, window, now=overview.now
        )


def _services(overview: Overview) -> tuple[ServiceHealth, ...]:
    database, redis = overview.database, overview.redis
    messages = sum(redis.waiting.values())
    return (
        ServiceHealth(
            name="PostgreSQL",
            is_ok=True,
            text=f"{database.version.split()[0]}, {size(database.size_bytes)}, "
            f"{database.connections} of {database.max_connections} connections",
        ),
        ServiceHealth(
            name="Redis",
            is_ok=redis.version is not None,
            text="does not answer: workers start a second later"
            if redis.version is None
            else f"{redis.version}, {messages} messages waiting",
        ),
    )
