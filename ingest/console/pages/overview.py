"""The overview: traffic, backlog and health."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.pages.site import Site, redirect, time_range, user
from ingest.console.services.commands import public_url
from ingest.console.services.overview import LATE_AFTER, Overview, Range, TimeBucket
from ingest.console.ui.charts import Series, bars, lines
from ingest.console.ui.formats import size
from ingest.console.ui.forms import text_field
from ingest.store.pipeline.metrics import describe_unreadable
from ingest.store.pipeline.processors import ProcessorRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over the range."""

    accepted: int
    """Deliveries, duplicates included."""
    duplicates: int
    rejected: int
    succeeded: int
    """Jobs."""
    failed: int
    """Attempts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Unfinished work."""

    dead: int
    """Dead letters that nobody discarded."""
    waiting: int
    running: int
    """Jobs."""
    oldest_s: float | None
    """Age of the oldest unfinished job or delivery, in seconds; None: there is none."""
    is_late: bool
    """Whether it is older than a healthy system leaves it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charts:
    """The charts, as SVG."""

    deliveries: Markup
    attempts: Markup
    lag: Markup
    response_time: Markup


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
    totals: Totals
    backlog: Backlog
    charts: Charts
    with_dead_letters: tuple[ProcessorRecord, ...]
    """Processors with dead letters, the most first."""
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
    dead = [processor for processor in overview.processors if processor.dead]
    unreadable = overview.unreadable
    view = OverviewPage(
        overview=overview,
        totals=_totals(overview),
        backlog=_backlog(overview),
        charts=_charts(overview),
        with_dead_letters=tuple(sorted(dead, key=lambda processor: -processor.dead)),
        unreadable=describe_unreadable(unreadable, f"in the last {overview.range}")
        if unreadable
        else None,
        services=_services(overview),
        is_empty=not overview.stats.events.total and not overview.stats.deliveries.rejected,
        receiver_url=public_url(console.settings, console.settings.default_source),
        can_send_test_event=bool(console.default_source.secrets),
    )
    return site.render(request, "overview.html", view, section="overview")


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
        succeeded=sum(bucket.succeeded for bucket in buckets),
        failed=sum(bucket.failed for bucket in buckets),
    )


def _backlog(overview: Overview) -> Backlog:
    oldest = min(filter(None, (overview.oldest_job, overview.oldest_unadmitted)), default=None)
    age_s = None if oldest is None else _age_s(oldest, overview.now)
    return Backlog(
        dead=sum(processor.dead for processor in overview.processors),
        waiting=overview.stats.jobs.pending + overview.stats.jobs.retrying,
        running=overview.stats.jobs.running,
        oldest_s=age_s,
        is_late=age_s is not None and age_s > LATE_AFTER.total_seconds(),
    )


def _age_s(moment: datetime, now: datetime) -> float:
    return max(0.0, (now - moment).total_seconds())


def _charts(overview: Overview) -> Charts:
    times = [bucket.begins for bucket in overview.buckets]
    span = timedelta(seconds=overview.span_s)

    def series(name: str, tone: str, value: Callable[[TimeBucket], float | None]) -> Series:
        return Series(name=name, tone=tone, values=[value(bucket) for bucket in overview.buckets])

    deliveries = [
        series("events", "accepted", lambda bucket: bucket.accepted - bucket.duplicates),
        series("duplicates", "duplicates", lambda bucket: bucket.duplicates),
        series("rejected", "rejected", lambda bucket: bucket.rejected),
    ]
    attempts = [
        series("succeeded", "succeeded", lambda bucket: bucket.succeeded),
        series("failed", "failed", lambda bucket: bucket.failed),
    ]
    lag = [
        series("p50", "p50", lambda bucket: bucket.lag_p50_s),
        series("p95", "p95", lambda bucket: bucket.lag_p95_s),
    ]
    response = [
        series("p50", "p50", lambda bucket: bucket.answer_p50_s),
        series("p95", "p95", lambda bucket: bucket.answer_p95_s),
    ]
    return Charts(
        deliveries=bars(
            deliveries, times, span=span, unit="deliveries", label="Deliveries over time"
        ),
        attempts=bars(attempts, times, span=span, unit="attempts", label="Attempts over time"),
        lag=lines(lag, times, span=span, label="Time from receipt to success"),
        response_time=lines(response, times, span=span, label="Response time of the receiver"),
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
