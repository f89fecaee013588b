"""The list of processors, and the forms that pause, resume, limit and run them."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.errors import BadRequest
from ingest.console.pages.site import Site, redirect, time_range, user
from ingest.console.services import processor_view
from ingest.console.services.processor_view import ProcessorView
from ingest.console.services.ranges import Range
from ingest.console.ui.forms import text_field
from ingest.console.ui.paths import processor_path
from ingest.store.pipeline import limit_waits, limits


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorsPage:
    """The view model of `processors.html`."""

    range: Range
    """What rates, percentiles and failures cover."""
    measured_s: float
    """How many seconds of it were measured."""
    rows: tuple[ProcessorView, ...]
    in_line: Mapping[str, int]
    """Jobs that wait for limits, by processor."""
    most_in_line: int
    """How many of each were counted at most."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the routes of the page and its forms."""
    return [
        site.get("/processors", show, name="processors"),
        site.post("/processors/{name:path}/{change}", change, name="change processor"),
    ]


def show(site: Site, request: Request) -> Response:
    """Show the processors and their performance."""
    period = time_range(request, default=Range.HOUR)
    with site.console.engine.connect() as connection:
        shown = processor_view.read(
            connection,
            period,
            destinations=site.console.destinations,
            now=site.console.now(),
            masked=site.masks(request),
        )
        in_line = limit_waits.in_line(connection)
    view = ProcessorsPage(
        range=shown.range,
        measured_s=shown.measured_s,
        rows=shown.views,
        in_line=in_line,
        most_in_line=limit_waits.COUNTED,
    )
    return site.render(request, "processors.html", view, section="processors")


def change(site: Site, request: Request, form: FormData) -> Response:
    """Pause or resume a processor, set its limits, run a periodic one, close its breaker or probe
    its target."""
    name, verb = request.path_params["name"], request.path_params["change"]
    changes = site.console.commands
    if verb in ("limit", "as-declared"):
        names = limits.NAMES if verb == "limit" else ()
        values: dict[str, int | str | None] = {
            field: text_field(form, field).strip() or None for field in names
        }
        changes.set_limits(user(request), name, values, text_field(form, "reason"))
        return redirect(processor_path(name))
    commands = {
        "pause": changes.pause,
        "resume": changes.resume,
        "run": changes.run_processor,
        "close": changes.close_breaker,
        "probe": changes.probe,
    }
    if verb not in commands:
        known = "The change must be pause, resume, limit, as-declared, run, close or probe."
        raise BadRequest(known, reason="bad_action")
    commands[verb](user(request), name, text_field(form, "reason"))
    is_of_its_page = text_field(form, "from") == "page"
    return redirect(processor_path(name) if is_of_its_page else "/processors")
