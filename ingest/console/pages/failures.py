"""The page of failed jobs."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.pages.site import Site, time_range
from ingest.console.services.ranges import LENGTHS, Range
from ingest.console.ui import masking
from ingest.recovery import sentences
from ingest.store.reports import failures
from ingest.store.reports.failures import Failures
from ingest.store.search.titles import titled_examples


@dataclass(frozen=True, slots=True, kw_only=True)
class FailuresPage:
    """The view model of `failures.html`."""

    range: Range
    """What trends and counts cover. The groups of failed jobs are those that fail now."""
    failures: Failures
    possible_losses: tuple[str, ...]
    """What was refused and is not sent again, in sentences."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the page's routes."""
    return [site.get("/failures", show, name="failures")]


def show(site: Site, request: Request) -> Response:
    """Show what fails."""
    period = time_range(request, default=Range.DAY)
    now = site.console.now()
    overview = site.console.overviews.newest()
    with site.console.engine.connect() as connection:
        failed = failures.groups(connection, now=now, period=LENGTHS[period])
        failed = titled_examples(connection, failed, site.console.sources)
    masked = site.masks(request)
    view = FailuresPage(
        range=period,
        failures=masking.failures(failed, masked=masked),
        possible_losses=tuple(
            sentences.of_losses(overview.possible_losses if overview else (), now=now)
        ),
    )
    return site.render(request, "failures.html", view, section="failures")
