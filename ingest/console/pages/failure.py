"""The page of one group of failures, and the forms that change it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

from markupsafe import Markup
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.errors import BadRequest
from ingest.console.pages.site import Site, redirect, time_range, user
from ingest.console.services import failures
from ingest.console.services.failures import FailureDetails
from ingest.console.services.ranges import Range, Window, window
from ingest.console.ui.charts import Series, bars
from ingest.console.ui.forms import text_field
from ingest.store.failures import records

MUTES: Mapping[str, timedelta] = MappingProxyType(
    {
        "1 hour": timedelta(hours=1),
        "1 day": timedelta(days=1),
        "1 week": timedelta(weeks=1),
    }
)
"""The spans that the form offers."""
NOW, ALL_SUCCEEDED, NEXT = "now", "succeeded", "next"
"""How the form resolves: at once, when all has succeeded, or in the next release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePage:
    """The view model of `failure.html`."""

    range: Range
    """What the chart covers."""
    details: FailureDetails
    chart: Markup
    me: str
    """The name of the user."""
    names: tuple[str, ...]
    """Names that failures were assigned to."""
    mutes: tuple[str, ...]
    """The spans to choose from."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the routes of the page and its forms."""
    return [
        site.get("/failures/{id:number}", show, name="failure"),
        site.post("/failures/{id:number}/acknowledge", acknowledge, name="acknowledge failure"),
        site.post("/failures/{id:number}/resolve", resolve, name="resolve failure"),
        site.post("/failures/{id:number}/mute", mute, name="mute failure"),
        site.post("/failures/{id:number}/reopen", reopen, name="reopen failure"),
        site.post("/failures/{id:number}/assign", assign, name="assign failure"),
        site.post("/failures/{id:number}/note", note, name="note on failure"),
    ]


def show(site: Site, request: Request) -> Response:
    """Show a group of failures."""
    console, now = site.console, site.console.now()
    period = time_range(request, default=Range.DAY)
    with console.engine.connect() as connection:
        details = failures.details(
            connection,
            request.path_params["id"],
            period,
            sources=console.sources,
            now=now,
            masked=site.masks(request),
        )
        names = records.names(connection)
    view = FailurePage(
        range=period,
        details=details,
        chart=_chart(details, window(period, now)),
        me=user(request).name,
        names=tuple(dict.fromkeys((user(request).name, *names))),
        mutes=tuple(MUTES),
    )
    return site.render(request, "failure.html", view, section="failures")


def acknowledge(site: Site, request: Request, form: FormData) -> Response:
    """Say that somebody looks after it."""
    number = request.path_params["id"]
    site.console.failure_changes.acknowledge(user(request), number, text_field(form, "reason"))
    return _back(number)


def resolve(site: Site, request: Request, form: FormData) -> Response:
    """Say that it is mended, or when it is to be resolved."""
    number, how = request.path_params["id"], text_field(form, "how") or NOW
    if how not in (NOW, ALL_SUCCEEDED, NEXT):
        raise BadRequest("Nobody knows how to resolve it so.", reason="bad_resolution")
    site.console.failure_changes.resolve(
        user(request),
        number,
        text_field(form, "reason"),
        in_release=NEXT if how == NEXT else None,
        when_succeeded=how == ALL_SUCCEEDED,
    )
    return _back(number)


def mute(site: Site, request: Request, form: FormData) -> Response:
    """Take it from the list for a while."""
    number, now = request.path_params["id"], site.console.now()
    span = MUTES.get(text_field(form, "for"))
    site.console.failure_changes.mute(
        user(request),
        number,
        text_field(form, "reason"),
        now=now,
        until=None if span is None else now + span,
        times=_times(form),
    )
    return _back(number)


def reopen(site: Site, request: Request, form: FormData) -> Response:
    """Say that it is not mended, muted or looked after."""
    number = request.path_params["id"]
    site.console.failure_changes.reopen(user(request), number, text_field(form, "reason"))
    return _back(number)


def assign(site: Site, request: Request, form: FormData) -> Response:
    """Give it to somebody."""
    number = request.path_params["id"]
    site.console.failure_changes.assign(user(request), number, text_field(form, "to"))
    return _back(number)


def note(site: Site, request: Request, form: FormData) -> Response:
    """Keep a note."""
    number = request.path_params["id"]
    site.console.failure_changes.note(user(request), number, text_field(form, "text"))
    return redirect(f"/failures/{number}#notes")


def _back(number: int) -> Response:
    return redirect(f"/failures/{number}")


def _times(form: FormData) -> int | None:
    """Return the number of times after which a mute ends; None: the field is empty.

    Raises:
        BadRequest: it is no number.
    """
    text = text_field(form, "times").strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise BadRequest("The number of times must be a number.", reason="bad_times")
    return int(text)


def _chart(details: FailureDetails, period: Window) -> Markup:
    """Draw how many attempts failed so over time."""
    return bars(
        [Series(name="failed attempts", tone="failed", values=details.counts)],
        period.begins,
        span=period.span,
        unit="failed attempts",
        label="Failed attempts over time",
    )
