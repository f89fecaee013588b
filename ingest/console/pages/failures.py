"""The page of failed jobs, rejected deliveries and refused requests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.pages.site import Site, time_range
from ingest.console.services import ranges
from ingest.console.services.ranges import LENGTHS, Range
from ingest.console.ui import masking
from ingest.recovery import sentences
from ingest.store.pipeline import metrics
from ingest.store.pipeline.histograms import Histogram
from ingest.store.pipeline.metrics import REFUSED
from ingest.store.reports import failures, refused_requests
from ingest.store.reports.failures import Failures, Rejected
from ingest.store.reports.refused_requests import Refusal
from ingest.store.search.titles import titled_examples


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRequests:
    """The refused requests of one reason."""

    count: int
    """In the range."""
    samples: tuple[Refusal, ...]
    """The newest of each source, newest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailuresPage:
    """The view model of `failures.html`."""

    range: Range
    """What trends and counts cover. The groups of failed jobs are those that fail now."""
    failures: Failures
    rejected: tuple[Rejected, ...]
    refused: tuple[RefusedRequests, ...]
    possible_losses: tuple[str, ...]
    """What was refused and is not sent again, in sentences."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the page's routes."""
    return [site.get("/failures", show, name="failures")]


def show(site: Site, request: Request) -> Response:
    """Show what fails, what was rejected and what was refused."""
    period = time_range(request, default=Range.DAY)
    now = site.console.now()
    since = ranges.window(period, now).since
    overview = site.console.overviews.newest()
    with site.console.engine.connect() as connection:
        failed = failures.groups(connection, now=now, period=LENGTHS[period])
        failed = titled_examples(connection, failed, site.console.sources)
        rejected = failures.rejected(connection, since=since)
        samples = refused_requests.newest(connection)
        counts = metrics.by_label(connection, REFUSED, since=since)
    masked = site.masks(request)
    view = FailuresPage(
        range=period,
        failures=masking.failures(failed, masked=masked),
        rejected=tuple(rejected),
        refused=_by_reason(masking.refusals(samples, masked=masked), counts, since=since),
        possible_losses=tuple(
            sentences.of_losses(overview.possible_losses if overview else (), now=now)
        ),
    )
    return site.render(request, "failures.html", view, section="failures")


def _by_reason(
    samples: Sequence[Refusal], counts: Mapping[str, Histogram], *, since: datetime
) -> tuple[RefusedRequests, ...]:
    """Group samples, which come newest first, by their reason, if there were any since then."""
    newest: dict[str, dict[str, Refusal]] = {}
    for sample in samples:
        newest.setdefault(sample.reason, {}).setdefault(sample.source, sample)
    return tuple(
        RefusedRequests(
            count=counts.get(reason, Histogram()).total, samples=tuple(by_source.values())
        )
        for reason, by_source in newest.items()
        if reason in counts or any(sample.at >= since for sample in by_source.values())
    )
