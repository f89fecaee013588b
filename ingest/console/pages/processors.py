"""The page of processors, and the forms that pause and resume them."""

from dataclasses import dataclass

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.errors import BadRequest
from ingest.console.pages.site import Site, redirect, time_range, user
from ingest.console.services import ranges
from ingest.console.services.ranges import Range
from ingest.console.ui import masking
from ingest.console.ui.forms import text_field
from ingest.store.pipeline import jobs, metrics, processors
from ingest.store.pipeline.histograms import Histogram
from ingest.store.pipeline.jobs import ParkedJobs
from ingest.store.pipeline.metrics import FAILED, SUCCEEDED
from ingest.store.pipeline.processors import ProcessorRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorRow:
    """A processor and what it did in the range."""

    processor: ProcessorRecord
    rate: float
    """Jobs that succeeded, per second of the time that was measured."""
    p50_s: float | None
    p95_s: float | None
    """From receipt to success; None: nothing succeeded."""
    failures: int
    """Failed attempts."""
    parked: tuple[ParkedJobs, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorsPage:
    """The view model of `processors.html`."""

    range: Range
    """What rates, percentiles and failures cover."""
    measured_s: float
    """How many seconds of it were measured."""
    rows: tuple[ProcessorRow, ...]


def routes(site: Site) -> list[BaseRoute]:
    """Return the routes of the page and its forms."""
    return [
        site.get("/processors", show, name="processors"),
        site.post("/processors/{name:path}/{change}", change, name="change processor"),
    ]


def show(site: Site, request: Request) -> Response:
    """Show the processors and their performance."""
    period, now = time_range(request, default=Range.HOUR), site.console.now()
    window = ranges.window(period, now)
    with site.console.engine.connect() as connection:
        records = processors.all_of_them(connection)
        parked = jobs.parked(connection)
        succeeded = metrics.by_label(connection, SUCCEEDED, since=window.since)
        failed = metrics.by_label(connection, FAILED, since=window.since)
        measured_s = ranges.measured_s(connection, window, now=now)
    rows = []
    for record in masking.processors(records, masked=site.masks(request)):
        durations = succeeded.get(record.name, Histogram())
        rows.append(
            ProcessorRow(
                processor=record,
                rate=durations.total / measured_s if measured_s else 0.0,
                p50_s=durations.percentile(0.5),
                p95_s=durations.percentile(0.95),
                failures=failed.get(record.name, Histogram()).total,
                parked=tuple(group for group in parked if group.processor == record.name),
            )
        )
    view = ProcessorsPage(range=period, measured_s=measured_s, rows=tuple(rows))
    return site.render(request, "processors.html", view, section="processors")


def change(site: Site, request: Request, form: FormData) -> Response:
    """Pause or resume a processor."""
    name, verb = request.path_params["name"], request.path_params["change"]
    commands = {"pause": site.console.commands.pause, "resume": site.console.commands.resume}
    if verb not in commands:
        raise BadRequest("The change must be pause or resume.", reason="bad_action")
    commands[verb](user(request), name, text_field(form, "reason"))
    return redirect("/processors")
