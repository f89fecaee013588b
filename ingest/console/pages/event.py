"""The page of one event, and what an operator can do with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.pages.freshness import REFRESH_S
from ingest.console.pages.site import Site, is_operator, redirect, user
from ingest.console.services import event_view
from ingest.console.services.commands import public_url
from ingest.console.services.event_view import EventView
from ingest.console.ui import resend_command
from ingest.console.ui.forms import text_field
from ingest.console.ui.json_view import pretty
from ingest.errors import InvalidSignature
from ingest.sources import operator, schedule
from ingest.sources.base import CannotSign, encoded_headers
from ingest.store.bulk.replay import DISCARD, REPLAY
from ingest.store.reports import event_detail
from ingest.store.reports.event_detail import AttemptRecord, JobRecord
from ingest.store.search.filters import EventFilter

SHOWN_BYTES = 256 * 1024
"""How much of a body a page shows. The API returns all of it."""
_UNFINISHED = ("pending", "running", "retrying")


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A body as a page shows it."""

    pretty: str | None
    """Formatted JSON; None: the body is not JSON, or hidden."""
    raw: str
    size: int
    """Bytes of the whole body."""
    is_cut: bool
    """Whether `raw` is only its beginning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """The view model of `event.html`."""

    event: EventView
    body: Body | None
    """The first delivery's body; None: retention dropped it."""
    resend_command: str | None
    """A shell command that sends the body again; None: the user may not, or it cannot be signed."""
    unsigned_source: str | None
    """The event's source, if the console has no secret to sign its deliveries with."""
    now: datetime
    """Tells what is due."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the routes of the page and its forms."""
    return [
        site.get("/events/{id:uuid}", show, name="event"),
        site.post("/events/{id:uuid}/replay", replay_event, name="replay event"),
        site.post("/events/{id:uuid}/discard", discard_event, name="discard event"),
        site.post("/jobs/{id:number}/retry", retry_job, name="retry job"),
    ]


def show(site: Site, request: Request) -> Response:
    """Show an event with its deliveries, jobs and attempts."""
    masked = site.masks(request)
    with site.console.engine.connect() as connection:
        event = event_view.read(
            connection,
            request.path_params["id"],
            sources=site.console.sources,
            masked=masked,
            entities=partial(site.console.entities.of_event, masked=masked),
        )
    may_send = is_operator(request)
    command = _resend_command(site, event) if may_send else None
    is_unfinished = any(job.state in _UNFINISHED for job in event.jobs) or not all(
        copy.is_stored for copy in event.copies
    )
    view = EventPage(
        event=event,
        body=_body(event),
        resend_command=command,
        unsigned_source=event.source if may_send and not _may_sign(site, event.source) else None,
        now=site.console.now(),
    )
    return site.render(
        request, "event.html", view, section="events", refresh_s=2.0 if is_unfinished else REFRESH_S
    )


def replay_event(site: Site, request: Request, form: FormData) -> Response:
    """Replay an event: what has not succeeded, or all of its jobs."""
    return _begin(site, request, form, REPLAY)


def discard_event(site: Site, request: Request, form: FormData) -> Response:
    """Discard an event's waiting and dead jobs."""
    return _begin(site, request, form, DISCARD)


def retry_job(site: Site, request: Request, form: FormData) -> Response:
    """Run a job now."""
    job = request.path_params["id"]
    site.console.commands.retry_now(user(request), job, text_field(form, "reason"))
    with site.console.engine.connect() as connection:
        return redirect(f"/events/{event_detail.job(connection, job).event}")


def took_s(attempt: AttemptRecord) -> float | None:
    """Return how many seconds an attempt took; None: it is running."""
    if attempt.finished_at is None:
        return None
    return (attempt.finished_at - attempt.started_at).total_seconds()


def earlier_attempts(job: JobRecord) -> int:
    """Return how many of a job's attempts, the first ones, are older than its last replay."""
    if job.replay is None:
        return 0
    of_replay = (place for place, known in enumerate(job.attempts) if known.replay == job.replay)
    return next(of_replay, len(job.attempts))


def _begin(site: Site, request: Request, form: FormData, action: str) -> Response:
    event = request.path_params["id"]
    with site.console.engine.connect() as connection:
        event_detail.check(connection, event)
    site.console.commands.begin(
        user(request),
        EventFilter(ids=(event,)),
        action=action,
        all_jobs=bool(text_field(form, "all_jobs")),
        reason=text_field(form, "reason"),
    )
    return redirect(f"/events/{event}")


def _body(event: EventView) -> Body | None:
    body = event.deliveries[0].body
    if body is None:
        return None
    raw = body[:SHOWN_BYTES]
    formatted = None if event.masked else pretty(raw)
    return Body(
        pretty=formatted if formatted != raw or raw[:1] in "{[" else None,
        raw=raw,
        size=len(body.encode()),
        is_cut=len(raw) < len(body),
    )


def _resend_command(site: Site, event: EventView) -> str | None:
    """Return the command that sends the first body again, signed with its own source's secret.

    None: the body is gone or too long, or nothing that is configured can sign it.
    """
    first = event.deliveries[0]
    body = first.body
    source = site.console.sources.get(event.source)
    if body is None or source is None or not source.secrets or len(body) > SHOWN_BYTES:
        return None
    url = public_url(site.console.settings, source.slug)
    headers = encoded_headers(first.headers or ())
    now = int(site.console.clock())
    try:
        return resend_command.command(url, source, body.encode(), headers, now=now)
    except (CannotSign, InvalidSignature):
        return None


def _may_sign(site: Site, slug: str) -> bool:
    """Return whether deliveries of a source can be signed here, or need no signature."""
    if slug in (operator.SLUG, schedule.SLUG):
        return True
    source = site.console.sources.get(slug)
    try:
        return source is not None and (not source.secrets or bool(source.newest_secret()))
    except CannotSign:
        return False


FILTERS: Mapping[str, Callable[..., Any]] = {
    "earlier_attempts": earlier_attempts,
    "took_s": took_s,
}
